//! Where the beam is: worked out from the time that has passed, never ticked.
//!
//! Programs wait for the vertical retrace, or time themselves by it, so it comes at the rate that
//! the CRT controller is set to. Where that would be never (a linear mode has no such timing, nor
//! has a VGA that nobody has set up), a monitor's usual 60 Hz stand in.
//!
//! Source: IBM VGA/XGA Technical Reference Manual, "Input Status Register 1", "CRT Controller
//! Registers".

use super::Vga;

const STATUS_DISPLAY_DISABLED: u8 = 0x01;
const STATUS_VERTICAL_RETRACE: u8 = 0x08;

/// Lines, lines shown, first line and length of the retrace, and nanoseconds of the 60 Hz mode.
const USUAL: (u32, u32, (u32, u32)) = (525, 480, (490, 2));
const USUAL_NS: u128 = 16_666_667;

/// What the beam does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beam {
    /// Frames since machine start.
    pub(super) frame: u64,
    shows: bool,
    retraces: bool,
}

impl Beam {
    pub(super) fn status(self) -> u8 {
        let disabled = if self.shows { 0 } else { STATUS_DISPLAY_DISABLED };
        disabled | if self.retraces { STATUS_VERTICAL_RETRACE } else { 0 }
    }

    /// The cursor's and the characters' half of their blinking: 8 and 16 frames.
    pub(super) fn cursor_is_on(self) -> bool {
        self.frame & 8 == 0
    }

    pub(super) fn blinking_is_on(self) -> bool {
        self.frame & 16 == 0
    }
}

impl Vga {
    pub(super) fn beam(&self, now: u64) -> Beam {
        let (regs, now) = (&self.regs, u128::from(now));
        let programmed = (regs.vertical_total(), regs.height(), regs.vertical_retrace());
        let (retrace, below) = (programmed.2.0, programmed.1..programmed.0);
        let usual = self.dispi.enabled() || !below.contains(&retrace);
        let (total, shown, (start, len)) = if usual { USUAL } else { programmed };
        // In dots, or in nanoseconds of 60 Hz.
        let (at, line, visible) = if usual {
            let line = USUAL_NS / u128::from(total);
            (now, line, line * 4 / 5)
        } else {
            let dots = regs.dots() as u128;
            let clock = u128::from(regs.clock()) / regs.dot_repeats() as u128;
            let line = (u128::from(regs.crtc[0]) + 5) * dots;
            (now * clock / 1_000_000_000, line, regs.columns() as u128 * dots)
        };
        let y = (at / line % u128::from(total)) as u32;
        Beam {
            frame: (at / line / u128::from(total)) as u64,
            shows: y < shown && at % line < visible,
            retraces: y.wrapping_sub(start) < len,
        }
    }
}
