//! vhost-user back end: messages, sessions, sockets.
