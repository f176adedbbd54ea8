"""The store: searches, children, controller steps and weights in SQL (`store.Store` is the one door)."""
