//! Every feature that there is.

use super::{GENERIC, Model};
use crate::sys::cpuid::Features;

/// See the head of the file.
pub static MODEL: Model = Model {
    name: "max",
    about: "every feature there is: also SMAP, VAES, VPCLMULQDQ, …",
    brand: "Ring3 max CPU",
    features: Features::ALL,
    ..GENERIC
};
