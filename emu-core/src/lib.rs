//! The core of Ring3: micro-ops, their interpreter, guest memory and the soft TLB, the block
//! cache and the run loop of one virtual CPU.
//!
//! What lives here knows the *layout* of x86 state (which register has which number, where the
//! flags are), because every tier addresses it, but no x86 *behaviour*: instructions, paging and
//! exceptions come from the frontend through [`cpu::Frontend`]. Devices come through
//! [`platform::Platform`].
#![warn(clippy::pedantic)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_lossless,
    clippy::module_name_repetitions,
    clippy::inline_always,
    clippy::must_use_candidate,
    clippy::similar_names,
    clippy::many_single_char_names,
    clippy::unreadable_literal,
    clippy::enum_glob_use,
    clippy::wildcard_imports,
    clippy::too_many_lines,
    clippy::struct_excessive_bools,
    clippy::return_self_not_must_use,
    clippy::verbose_bit_mask,
    clippy::large_stack_arrays,
    clippy::match_same_arms
)]

pub mod build;
pub mod cache;
pub mod clock;
pub mod compare;
pub mod cpu;
pub mod fault;
pub mod flags;
pub mod fp;
pub mod interp;
pub mod mem;
pub mod native;
pub mod passes;
pub mod patch;
pub mod platform;
pub mod rare;
pub mod text;
pub mod uop;
pub mod vcpu;
pub mod vec;
pub mod verify;
pub mod watch;
pub mod width;
