//! The comparison of two CPUs: it sees what it should, and names it.

use crate::machine::cpu;
use emu_core::compare::{State, differences, names};
use emu_core::cpu::{Cpu, Reg};
use std::collections::HashSet;

#[test]
fn all_words_have_a_name_of_their_own() {
    let cpu = cpu();
    let names: Vec<String> = names(&cpu).iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), State::of(&cpu).words().len());
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}

type Change = (&'static str, fn(&mut Cpu));

#[test]
fn a_change_is_named() {
    let changes: [Change; 9] = [
        ("r9: 0x0, 0x7\n", |c| c.regs[9] = 7),
        ("fs.base: 0x0, 0x7\n", |c| c.set_reg(Reg::FS_BASE, 7)),
        ("rflags: 0x2, 0x3\n", |c| c.set_rflags(1)),
        ("ymm15[3]: 0x0, 0x7\n", |c| c.v[15][3] = 7),
        ("R2.se: 0x0, 0x7\n", |c| c.x87.st[2].se = 7),
        ("cs.limit: 0x0, 0x7\n", |c| c.segs[1].limit = 7),
        ("dr7: 0x0, 0x7\n", |c| c.sys.dr[7] = 7),
        ("exceptions 0x0e: 0x0, 0x7\n", |c| c.vectors[14] = 7),
        ("", |c| c.set_reg(Reg::T3, 7)),
    ];
    for (says, change) in changes {
        let mut other = cpu();
        change(&mut other);
        assert_eq!(differences(&cpu(), &other), says);
    }
}
