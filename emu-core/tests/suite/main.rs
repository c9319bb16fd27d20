//! Tests of the core as a whole: the text form, the passes and the interpreter over random blocks,
//! and the run loop with a toy frontend.

mod compare;
mod fused;
mod machine;
mod mock;
mod native;
mod passes;
mod random;
mod run_loop;
#[path = "run_loop.rs"]
#[allow(clippy::duplicate_mod)]
mod run_loop_translated;
#[path = "run_loop.rs"]
#[allow(clippy::duplicate_mod)]
mod run_loop_warm;
mod text;
mod threaded;
mod toy;
