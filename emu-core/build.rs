//! Tells the interpreter whether the optimiser runs: only then are its sibling calls jumps.
fn main() {
    println!("cargo::rustc-check-cfg=cfg(tail_calls)");
    if std::env::var("OPT_LEVEL").is_ok_and(|l| l != "0")
        && std::env::var("CARGO_CFG_MIRI").is_err()
    {
        println!("cargo::rustc-cfg=tail_calls");
    }
}
