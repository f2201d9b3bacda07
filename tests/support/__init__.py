"""What tests share: real servers and programs, waiting on conditions, small peers. No mocks."""
