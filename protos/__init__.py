"""The wire contract: inferd.proto, its generated stubs, and the clients that speak it."""
