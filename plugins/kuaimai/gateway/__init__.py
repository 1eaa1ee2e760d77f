"""The gateway: sign a request, send it, map its answer; nothing here knows what a trade is."""
