//! Real mode (SDM Vol. 3, chapter 21): segments of 64 KiB, the vector table, the 8086's habits.

use super::layout::*;
use super::rows;
use iced_x86::code_asm::*;

rows! {
    "PUSH SP pushes SP as it was", Real, "5000 4ffe", "SDM Vol. 2, PUSH", |s| {
        mov(sp, 0x5000); push(sp); pop(ax); mov(bx, sp); show(ax);
        mov(sp, 0x5000); push(sp); show(sp);
    }
    "a word at FFFFH is beyond the limit", Real, "#GP ok", "SDM Vol. 3, 21.1.1 and 6.15 (#GP)", |s| {
        mov(bx, 0xffff);
        guard(); mov(ax, word_ptr(bx)); caught();
        guard(); mov(al, byte_ptr(bx)); caught();
    }
    "a word at SS:FFFFH is #SS", Real, "#SS", "SDM Vol. 3, 6.15 (#SS)", |s| {
        mov(bp, 0xffff);
        guard(); mov(ax, word_ptr(bp)); caught();
    }
}
