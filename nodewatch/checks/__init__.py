"""One file a check; `_api` declares and finds them."""
