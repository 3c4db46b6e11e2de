//! Retries of HTTP calls: what a status means, what may be repeated, which delays a server asks for.
