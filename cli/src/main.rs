//! The `ring3` program.

fn main() -> std::process::ExitCode {
    ring3::main()
}
