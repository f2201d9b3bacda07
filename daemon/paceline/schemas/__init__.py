"""What a payload may hold, one file for each provider: pure, so that the client can refuse at once.

fields     pieces that all of them check: objects, texts, addresses, base64, misspelt keys
email      the neutral e-mail payload, which every mail profile renders
maxmd, sparkpost, mailgun   the provider's own body, and what it can make of the neutral one
"""
