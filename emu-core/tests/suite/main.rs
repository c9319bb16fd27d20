//! Tests of the core as a whole: the text form, the passes and the interpreter over random blocks,
//! and the run loop with a toy frontend.

mod fused;
mod machine;
mod passes;
mod random;
mod run_loop;
mod text;
mod threaded;
mod toy;
