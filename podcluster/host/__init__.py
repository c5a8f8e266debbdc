"""One Xen host, exact to the page: machine frames, guest tables, populate-on-demand, and the guests that live on it."""
