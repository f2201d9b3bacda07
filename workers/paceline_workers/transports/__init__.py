"""How requests reach the wire: connections of our own choosing under requests' sessions."""
