"""Where images come from: listing, checking and registering a source's files; sources that ship."""
