//! Host code as text, for reports: the instructions of a region, each with the guest instruction
//! that it is for.
//!
//! Where the code of a guest instruction begins the compiler says; a piece out of line is for the
//! instruction that jumps there. What differs from run to run is shown by name: fields of the
//! [`Cpu`], routines, tables; what is jumped to within the region has a number.

use super::{Region, X64};
use crate::enter::{self, BIAS};
use core::mem::offset_of;
use emu_core::cpu::{Cpu, Reg};
use emu_core::mem::tlb::{SLOTS, SlotPlace};
use emu_core::native::{HostInsn, Native};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, NasmFormatter, OpKind, Register,
    SymbolResolver, SymbolResult,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where the parts of a block's code are.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// Offset at which the code of a guest instruction begins, and its index.
    pub insns: Vec<(u32, u32)>,
    /// Offset of the code out of line, and of the end.
    pub cold: u32,
    pub end: u32,
}

impl Marks {
    /// Code for guest instruction `insn` begins, or goes on, at `at`.
    pub(super) fn insn(&mut self, at: usize, insn: usize) {
        if self.insns.last().is_none_or(|last| last.1 != insn as u32) {
            self.insns.push((at as u32, insn as u32));
        }
    }
}

/// Fields of the CPU: offset, size of an element, elements, name.
const FIELDS: &[(usize, usize, usize, &str)] = &[
    (offset_of!(Cpu, flags), 8, 1, "flags"),
    (offset_of!(Cpu, sysflags), 8, 1, "sysflags"),
    (offset_of!(Cpu, budget), 8, 1, "budget"),
    (offset_of!(Cpu, mode), 4, 1, "mode"),
    (offset_of!(Cpu, mxcsr), 4, 1, "mxcsr"),
    (offset_of!(Cpu, v), 32, 24, "ymm"),
    (offset_of!(Cpu, x87.st), 16, 8, "x87.r"),
    (offset_of!(Cpu, x87.cw), 2, 1, "x87.cw"),
    (offset_of!(Cpu, x87.sw), 2, 1, "x87.sw"),
    (offset_of!(Cpu, x87.full), 1, 1, "x87.full"),
    (offset_of!(Cpu, native) + offset_of!(Native, flags), 8, 1, "native.flags"),
    (offset_of!(Cpu, native) + offset_of!(Native, tlb), 8, 1, "native.tlb"),
    (offset_of!(Cpu, native) + offset_of!(Native, fetches), 8, 1, "native.fetches"),
    (offset_of!(Cpu, native) + offset_of!(Native, ram), 8, 1, "native.ram"),
    (offset_of!(Cpu, native) + offset_of!(Native, left), 8, 1, "native.left"),
    (offset_of!(Cpu, native) + offset_of!(Native, epoch), 8, 1, "native.epoch"),
    (offset_of!(Cpu, native) + offset_of!(Native, table), 8, 1, "native.table"),
    (offset_of!(Cpu, native) + offset_of!(Native, live), 8, 1, "native.live"),
    (offset_of!(Cpu, native) + offset_of!(Native, vectors), 32, 2, "native.vector"),
    (offset_of!(Cpu, tlb.slots.pages), 8, 2 * SLOTS, "slot.page"),
    (offset_of!(Cpu, tlb.slots.at), size_of::<SlotPlace>(), 2 * SLOTS, "slot.at"),
];

/// Name of what is at `at` bytes into the [`Cpu`].
fn field(at: usize) -> String {
    let within = |rest: usize| if rest == 0 { String::new() } else { format!("+{rest}") };
    let regs = at.wrapping_sub(offset_of!(Cpu, regs));
    if regs < 8 * 32 {
        return format!("cpu.{}{}", Reg((regs / 8) as u8), within(regs % 8));
    }
    for &(start, size, count, name) in FIELDS {
        let rest = at.wrapping_sub(start);
        if rest < size * count {
            let n = if count > 1 { (rest / size).to_string() } else { String::new() };
            return format!("cpu.{name}{n}{}", within(rest % size));
        }
    }
    format!("cpu+{at:#x}")
}

/// What addresses and constants are called.
struct Names {
    known: BTreeMap<u64, &'static str>,
    labels: BTreeMap<u64, usize>,
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        insn: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _size: u32,
    ) -> Option<SymbolResult<'_>> {
        let memory = instruction_operand.is_some_and(|n| insn.op_kind(n) == OpKind::Memory);
        let text = if memory {
            if insn.memory_base() != Register::RBP {
                return None;
            }
            field((address as i64).wrapping_add(BIAS as i64) as usize)
        } else if let Some(name) = self.known.get(&address) {
            (*name).to_owned()
        } else if branches(insn) {
            match self.labels.get(&address) {
                Some(n) => format!(".{n}"),
                None => "elsewhere".to_owned(),
            }
        } else {
            return None;
        };
        Some(SymbolResult::with_string(address, text))
    }
}

/// Whether `insn` is a jump or call to a fixed place.
fn branches(insn: &Instruction) -> bool {
    let f = insn.flow_control();
    matches!(
        f,
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
    ) && insn.op0_kind() == OpKind::NearBranch64
}

impl X64 {
    pub(super) fn lines(&self, b: &Region) -> Vec<HostInsn> {
        let marks = &b.marks;
        let code = self.buffer.code(b.at, marks.end as usize);
        let start = self.buffer.base() + b.at as u64;
        let decoder = || Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let end = start + code.len() as u64;
        let jumps = decoder().into_iter().filter(branches).map(|i| i.near_branch_target());
        let targets: BTreeSet<u64> = jumps.filter(|to| (start..end).contains(to)).collect();
        let labels: BTreeMap<u64, usize> = targets.into_iter().zip(1..).collect();
        let names = Names { known: self.known_addresses(b), labels: labels.clone() };
        let mut formatter = NasmFormatter::with_options(Some(Box::new(names)), None);
        formatter.options_mut().set_show_branch_size(false);
        formatter.options_mut().set_show_symbol_address(false);
        // Pieces out of line, and for which instruction they are.
        let mut pieces = BTreeMap::new();
        let mut lines = Vec::new();
        for host in decoder().into_iter() {
            let at = (host.ip() - start) as u32;
            let cold = at >= marks.cold;
            let insn = if cold {
                pieces.range(..=at).next_back().map_or(0, |(_, n)| *n)
            } else {
                let n = marks.insns.partition_point(|m| m.0 <= at);
                n.checked_sub(1).map_or(0, |n| marks.insns[n].1 as usize)
            };
            let to = host.near_branch_target().wrapping_sub(start);
            if branches(&host) && (marks.cold.into()..marks.end.into()).contains(&to) {
                pieces.entry(to as u32).or_insert(insn);
            }
            let mut text = String::new();
            formatter.format(&host, &mut text);
            lines.push(HostInsn { label: labels.get(&host.ip()).copied(), insn, cold, text });
        }
        lines
    }

    /// The routines: address, bytes and name.
    pub(super) fn routine_places(&self) -> Vec<(u64, u64, &'static str)> {
        let mut names = Vec::from_iter(self.routines.names());
        names.sort_unstable();
        let end = self.buffer.base() + self.empty as u64;
        let ends: Vec<u64> = names.iter().skip(1).map(|n| n.0).chain([end]).collect();
        names.into_iter().zip(ends).map(|((at, name), end)| (at, end - at, name)).collect()
    }

    /// Constants in the code that differ from run to run.
    fn known_addresses(&self, b: &Region) -> BTreeMap<u64, &'static str> {
        let tables = [
            (self.jumps.as_ptr() as u64, "jumps"),
            (self.buffer.base(), "code"),
            (enter::x87_from_cpu as *const () as u64, "x87_from_cpu"),
        ];
        let called = b.called.iter().map(|u| (&raw const **u as u64, "uop"));
        let systems = b.systems.iter().map(|s| (&raw const **s as u64, "system"));
        tables.into_iter().chain(self.routines.names()).chain(called).chain(systems).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_names() {
        let at = |off: usize| field(off);
        assert_eq!(at(offset_of!(Cpu, regs) + 8), "cpu.rcx");
        assert_eq!(at(offset_of!(Cpu, regs) + 8 * 25 + 4), "cpu.cs_base+4");
        assert_eq!(at(offset_of!(Cpu, v) + 3 * 32 + 16), "cpu.ymm3+16");
        assert_eq!(at(offset_of!(Cpu, native)), "cpu.native.flags");
        assert!(at(offset_of!(Cpu, cpl)).starts_with("cpu+0x"));
    }
}
