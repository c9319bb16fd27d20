//! The project's own guest: a teaching kernel in a BIOS-style ROM.
//!
//! `build.rs` assembles it with iced's `code_asm` from `src/demo/`, one commented file per stage;
//! no other assembler, no C. It is what `ring3 demo` runs, and the first test of the whole machine:
//! every line it prints states something it has just measured, every value it prints is one that
//! the manuals prescribe, so each correct PC sends the same bytes ([`demo_serial`]). A failed check
//! prints `FAIL: …` and leaves with another status.
//!
//! What it needs: a CPU with long mode, NX, SYSCALL and SSE2; 2 MiB of RAM; a 16550 UART at 0x3F8;
//! the two 8259s; the 8254; system control port A (0x92). If CPUID shows a local APIC, it must be
//! at FEE00000 and pass the 8259's interrupts in virtual-wire mode. Ports 0xE9 (debug console: the
//! CPUID names, which are not part of the prescribed text) and 0xF4 (`isa-debug-exit`) are written
//! to whether anything listens or not; where no debug exit ends the machine, it halts for ever.
//!
//! | where | what |
//! |---|---|
//! | `F000:FFF0` | reset vector: a far jump to `F000:0000` |
//! | F0000–FFFFF, FFFF0000–FFFFFFFF | the ROM |
//! | 00000–003FF | the real-mode interrupt vectors |
//! | 00600–007FF | variables |
//! | below 07C00, 0E000, 0F000 | stacks: real mode, kernel, 32-bit CPL 3 |
//! | 10000–1FFFF | the copy of the ROM in which all later stages run |
//! | 20000–24FFF | the kernel's page tables |
//! | 28000–28FFF | the page that the tasks share |
//! | 30000–39FFF, 40000–49FFF | tasks A and B: page tables, code, data, stacks |
//! | 50000–57FFF | scratch |
//!
//! [`layout`] has the numbers. The same image runs elsewhere; after a change of the story this
//! makes the expected text anew (exit status 33):
//!
//! ```sh
//! qemu-system-x86_64 -bios demo.rom -nographic -monitor none -serial stdio \
//!     -device isa-debug-exit,iobase=0xf4,iosize=4 | tr -d '\r' > roms/demo.expected
//! ```

pub mod layout;

/// The demo ROM: [`layout::ROM_SIZE`] bytes, to be mapped so that it ends at 4 GiB and again below
/// 1 MiB.
pub static DEMO_ROM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.rom"));

/// What the demo prints, with plain line feeds.
pub static DEMO_EXPECTED: &str = include_str!("../demo.expected");

/// The process status of a machine with an `isa-debug-exit` at 0xF4 when every check has passed.
/// A failed check gives `2 * EXIT_… + 1` of its stage instead (see [`layout`]).
pub const DEMO_SUCCESS_STATUS: i32 = layout::EXIT_SUCCESS as i32 * 2 + 1;

/// The bytes that the demo sends to the UART: [`DEMO_EXPECTED`] with CR LF line ends.
pub fn demo_serial() -> Vec<u8> {
    DEMO_EXPECTED.replace('\n', "\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::layout::*;
    use super::*;

    fn bytes<const N: usize>(offset: usize) -> [u8; N] {
        std::array::from_fn(|n| DEMO_ROM[offset + n])
    }

    fn in_rom(text: &str) -> bool {
        DEMO_ROM.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn the_image_is_one_segment() {
        assert_eq!(DEMO_ROM.len(), 0x1_0000);
        assert_eq!(DEMO_SUCCESS_STATUS, 33);
    }

    #[test]
    fn the_reset_vector_jumps_to_cli() {
        assert_eq!(bytes(RESET as usize), [0xEA, 0x00, 0x00, 0x00, 0xF0]);
        assert_eq!(DEMO_ROM[REAL as usize], 0xFA);
    }

    #[test]
    fn gates_point_into_their_stage() {
        let gates = usize::from(u16::from_le_bytes(bytes(IDTR64 as usize)) + 1) / 16;
        assert_eq!(gates, 0x31);
        for gate in 0..gates {
            let [low, selector, kind, middle] = std::array::from_fn(|n| {
                u16::from_le_bytes(bytes(IDT64 as usize + gate * 16 + n * 2))
            });
            let high = u32::from_le_bytes(bytes(IDT64 as usize + gate * 16 + 8));
            let handler = u64::from(high) << 32 | u64::from(middle) << 16 | u64::from(low);
            let image = KERNEL_BASE + u64::from(IMAGE);
            assert!((image + u64::from(LONG)..image + u64::from(USER_A)).contains(&handler));
            assert_eq!(selector, KERNEL_CODE64);
            assert_eq!(kind & 0x9FFF, 0x8E00);

            let [low, selector, _, high] = std::array::from_fn(|n| {
                u16::from_le_bytes(bytes(IDT32 as usize + gate * 8 + n * 2))
            });
            let handler = u32::from(high) << 16 | u32::from(low);
            assert!((IMAGE + PROT..IMAGE + LONG).contains(&handler));
            assert_eq!(selector, KERNEL_CODE32);
        }
    }

    #[test]
    fn the_expected_text_belongs_to_this_image() {
        assert!(DEMO_EXPECTED.lines().count() > 30);
        for line in DEMO_EXPECTED.lines() {
            assert!(
                [
                    "[real]  ", "[prot]  ", "[long]  ", "[timer] ", "[tasks] ", "[user A]",
                    "[user B]", "[done]  "
                ]
                .contains(&&line[..8]),
                "{line}"
            );
            // Every word that is no number (and no private word of a task) is a text of the image.
            let number = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_lowercase();
            for word in line.split_whitespace().filter(|word| !word.contains(number)) {
                assert!(in_rom(word), "{word:?} of {line:?} is not in the image");
            }
        }
        assert!(DEMO_EXPECTED.ends_with(" checks passed, none failed\n"));
        assert!(demo_serial().ends_with(b" failed\r\n"));
    }
}
