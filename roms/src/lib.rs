//! The project's own guest: a teaching kernel in a ROM, assembled when this crate is built.
