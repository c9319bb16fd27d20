//! When a guest listens at a serial port: drivers throw away what is in a port when they open it.

/// Whether the guest waits for input at a serial port: it has the receive interrupt on, or reads
/// the line status again and again (whoever only sends reads it once a byte). One that raises
/// RTS when it is ready is believed; with another, that must last for [`CALM`] after the port was
/// set up.
#[derive(Default)]
pub(super) struct Listener {
    /// Reads of the line status in a row.
    polls: u8,
    /// The receive interrupt is enabled.
    interrupt: bool,
    dlab: bool,
    /// RTS, once it has been raised.
    rts: Option<bool>,
    /// When a register was written, other than that for data.
    set_up: u64,
}

/// Nanoseconds that are longer than a driver takes to open a port.
pub(super) const CALM: u64 = 10_000_000;

impl Listener {
    pub(super) fn read(&mut self, reg: u16) {
        const LSR: u16 = 5;
        self.polls = if reg == LSR { self.polls.saturating_add(1) } else { 0 };
    }

    pub(super) fn write(&mut self, now: u64, reg: u16, value: u8) {
        self.polls = 0;
        match reg {
            0 => return,
            1 if !self.dlab => self.interrupt = value & 1 != 0,
            3 => self.dlab = value & 0x80 != 0,
            // In loopback RTS stays inside.
            4 if value & 0x12 == 2 => self.rts = Some(true),
            4 => self.rts = self.rts.map(|_| false),
            _ => {}
        }
        self.set_up = now;
    }

    pub(super) fn listens(&self, now: u64) -> bool {
        let calm = now.saturating_sub(self.set_up) >= CALM;
        let open = self.interrupt && (calm || self.rts == Some(true)) || calm && self.polls >= 2;
        open && !self.dlab && self.rts != Some(false)
    }
}
