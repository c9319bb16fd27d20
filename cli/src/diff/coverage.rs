//! Which CPU model is tested, and what judges its instructions.
use frontend_x86::sys::cpuid::Features;
/// The CPU model that is tested.
pub const MODEL: Features = Features::X86_64_V3;
