//! The x86 frontend: what guest bytes mean. Decodes with iced-x86, lifts to micro-ops (one row per
//! instruction, see [`insn`]), and holds the system behaviour (paging, segmentation, exceptions,
//! MSRs, CPUID; see [`sys`]) as helpers. It never names a host.
#![forbid(unsafe_code)]

pub mod insn;
pub mod lift;
pub mod model;
pub mod operand;
pub mod row;
pub mod sensitive;
pub mod sys;
pub mod x87;

use emu_core::cpu::Frontend;

/// The frontend, for [`emu_core::cpu::Cpu::new`].
pub static FRONTEND: Frontend = Frontend {
    translate: sys::paging::translate,
    lift: lift::lift,
    deliver_fault: sys::interrupt::deliver_fault,
    deliver_interrupt: sys::interrupt::deliver_interrupt,
    linear: sys::segment::linear,
    single_step: sys::debug::trap,
    helpers: insn::HELPERS,
};
