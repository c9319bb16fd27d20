//! The `ring3` program as a library, so that tests and chores can call its parts.

pub mod debian;
