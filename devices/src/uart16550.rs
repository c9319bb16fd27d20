//! 16550A UART: the PC's serial port.
//!
//! Eight registers by offset; offsets 0 and 1 change to the divisor latch while LCR.DLAB is set:
//!
//! | reg | read | write | DLAB=1 |
//! |---|---|---|---|
//! | 0 | RBR | THR | DLL |
//! | 1 | IER | IER | DLM |
//! | 2 | IIR | FCR | |
//! | 3 LCR, 4 MCR, 5 LSR (read only), 6 MSR (read only), 7 SCR | | | |
//!
//! The line is infinitely fast and the host side sets the pace: it pushes a byte when there is room
//! and pops what the guest has written; THRE stays low while bytes wait. Written bytes count as
//! sent, so that neither a FIFO reset nor a system reset loses one. What real time there is in the
//! chip shows as events only: the transmitter-empty interrupt when the last byte is popped, and the
//! receive time-out, which is immediate: data below the trigger level interrupts at once.
//!
//! `irq()` is the INTR pin. Writing THR lowers a transmitter-empty request and popping the byte
//! raises it again, so the board must look at the pin between the two. A PC gates INTR with OUT2;
//! that gate is outside the chip, `out2()` is its input.
//!
//! Source: National Semiconductor PC16550D datasheet, section 8 (registers).

use std::collections::VecDeque;

const IER_RDA: u8 = 0x01;
const IER_THRE: u8 = 0x02;
const IER_RLS: u8 = 0x04;
const IER_MS: u8 = 0x08;

const IIR_MODEM_STATUS: u8 = 0x00;
const IIR_NONE: u8 = 0x01;
const IIR_THRE: u8 = 0x02;
const IIR_RDA: u8 = 0x04;
const IIR_RLS: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0C;
const IIR_FIFOS: u8 = 0xC0;

const FCR_ENABLE: u8 = 0x01;
const FCR_RESET_RX: u8 = 0x02;

const LCR_DLAB: u8 = 0x80;

const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;

const LSR_DR: u8 = 0x01;
const LSR_OE: u8 = 0x02;
const LSR_THRE: u8 = 0x20;
const LSR_TEMT: u8 = 0x40;

const MSR_TERI: u8 = 0x04;
const MSR_RI: u8 = 0x40;
/// CTS, DSR and DCD: the far end is always there.
const MSR_CONNECTED: u8 = 0xB0;

const FIFO_SIZE: usize = 16;
/// Receive trigger level by FCR bits 7:6.
const TRIGGER: [usize; 4] = [1, 4, 8, 14];
/// 115200 baud / 12 = 9600: what QEMU starts with; the datasheet leaves it open.
const RESET_DIVISOR: u16 = 12;

/// A 16550A.
#[derive(Clone, Debug, PartialEq)]
pub struct Uart16550 {
    rx: VecDeque<u8>,
    tx: VecDeque<u8>,
    divisor: u16,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// The modem inputs (high half) and their change bits (low half).
    msr: u8,
    scr: u8,
    overrun: bool,
    /// The transmitter-empty event, until IIR reports it or THR is written.
    thre_pending: bool,
}

impl Default for Uart16550 {
    fn default() -> Uart16550 {
        Uart16550::new()
    }
}

impl Uart16550 {
    /// A UART after reset, with the far end connected.
    #[must_use]
    pub fn new() -> Uart16550 {
        Uart16550 {
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            divisor: RESET_DIVISOR,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            msr: MSR_CONNECTED,
            scr: 0,
            overrun: false,
            thre_pending: false,
        }
    }

    /// The MR pin. Bytes not yet popped stay, since they count as sent.
    pub fn reset(&mut self) {
        let tx = std::mem::take(&mut self.tx);
        *self = Uart16550 { tx, ..Uart16550::new() };
    }

    /// Reads register `reg` (0..8).
    pub fn read(&mut self, reg: u16) -> u8 {
        match reg & 7 {
            0 if self.dlab() => self.divisor as u8,
            1 if self.dlab() => (self.divisor >> 8) as u8,
            0 => self.rx.pop_front().unwrap_or(0),
            1 => self.ier,
            2 => {
                let iir = self.iir();
                if iir == IIR_THRE {
                    self.thre_pending = false;
                }
                iir | if self.fifos() { IIR_FIFOS } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let lsr = self.lsr();
                self.overrun = false;
                lsr
            }
            6 => {
                let msr = self.msr;
                self.msr &= 0xF0;
                msr
            }
            _ => self.scr,
        }
    }

    /// Writes register `reg` (0..8).
    pub fn write(&mut self, reg: u16, value: u8) {
        match reg & 7 {
            0 if self.dlab() => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            1 if self.dlab() => self.divisor = self.divisor & 0x00FF | u16::from(value) << 8,
            0 => self.transmit(value),
            1 => {
                // Enabling the interrupt while the transmitter is empty is itself the event.
                let enabled = value & !self.ier & IER_THRE != 0;
                self.thre_pending = if enabled { self.tx.is_empty() } else { self.thre_pending };
                self.ier = value & 0x0F;
            }
            2 => {
                if (value ^ self.fcr) & FCR_ENABLE != 0 || value & FCR_RESET_RX != 0 {
                    self.rx.clear();
                }
                // The other bits are not programmed unless the FIFOs are on.
                self.fcr = if value & FCR_ENABLE != 0 { value & 0xC9 } else { 0 };
            }
            3 => self.lcr = value,
            4 => {
                self.mcr = value & 0x1F;
                self.update_modem_inputs();
            }
            5 | 6 => {}
            _ => self.scr = value,
        }
    }

    /// The INTR pin.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.iir() != IIR_NONE
    }

    /// The OUT2 output (true: asserted), with which a PC lets INTR through. Off in loopback.
    #[must_use]
    pub fn out2(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
    }

    /// How many bytes [`Uart16550::push_rx`] will take now. None in loopback: SIN is disconnected.
    #[must_use]
    pub fn rx_room(&self) -> usize {
        match self.mcr & MCR_LOOP {
            0 => self.capacity().saturating_sub(self.rx.len()),
            _ => 0,
        }
    }

    /// A byte arrives from the host; false when there is no room and the host must hold it back.
    pub fn push_rx(&mut self, byte: u8) -> bool {
        let room = self.rx_room() > 0;
        if room {
            self.rx.push_back(byte);
        }
        room
    }

    /// Takes the oldest byte that the guest has written.
    pub fn pop_tx(&mut self) -> Option<u8> {
        let byte = self.tx.pop_front();
        if byte.is_some() && self.tx.is_empty() {
            self.thre_pending = true;
        }
        byte
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos() { FIFO_SIZE } else { 1 }
    }

    fn transmit(&mut self, byte: u8) {
        if self.mcr & MCR_LOOP == 0 {
            // A guest that writes on although THRE is low loses the byte, as on the chip.
            self.thre_pending = false;
            if self.tx.len() < FIFO_SIZE {
                self.tx.push_back(byte);
            }
            return;
        }
        self.thre_pending = self.tx.is_empty();
        if self.rx.len() < self.capacity() {
            self.rx.push_back(byte);
        } else {
            // A full FIFO keeps its contents; a full RBR is overwritten.
            self.overrun = true;
            if !self.fifos() {
                self.rx.clear();
                self.rx.push_back(byte);
            }
        }
    }

    fn lsr(&self) -> u8 {
        let mut lsr = 0;
        lsr |= if self.rx.is_empty() { 0 } else { LSR_DR };
        lsr |= if self.overrun { LSR_OE } else { 0 };
        lsr | if self.tx.is_empty() { LSR_THRE | LSR_TEMT } else { 0 }
    }

    /// The highest-priority interrupt, without the FIFO bits.
    fn iir(&self) -> u8 {
        let trigger = TRIGGER[usize::from(self.fcr >> 6)];
        let enabled = |bit| self.ier & bit != 0;
        if enabled(IER_RLS) && self.overrun {
            IIR_RLS
        } else if enabled(IER_RDA) && self.rx.len() >= trigger {
            IIR_RDA
        } else if enabled(IER_RDA) && !self.rx.is_empty() {
            IIR_TIMEOUT
        } else if enabled(IER_THRE) && self.thre_pending {
            IIR_THRE
        } else if enabled(IER_MS) && self.msr & 0x0F != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    /// In loopback the four modem outputs feed the four inputs.
    fn update_modem_inputs(&mut self) {
        /// (MCR output, MSR input): DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        const LOOP: [(u8, u8); 4] = [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)];
        let inputs = match self.mcr & MCR_LOOP {
            0 => MSR_CONNECTED,
            _ => LOOP.iter().filter(|row| self.mcr & row.0 != 0).fold(0, |msr, row| msr | row.1),
        };
        let changed = (self.msr ^ inputs) & 0xF0;
        // The ring indicator reports its trailing edge only.
        let rings = if self.msr & MSR_RI & !inputs != 0 { MSR_TERI } else { 0 };
        self.msr = inputs | self.msr & 0x0F | changed >> 4 & !MSR_TERI | rings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const FIFO_ON: u8 = 0x01;

    fn uart(ier: u8, fcr: u8) -> Uart16550 {
        let mut uart = Uart16550::new();
        uart.write(2, fcr);
        uart.write(1, ier);
        uart
    }

    #[test]
    fn divisor_latch_hides_data_and_ier() {
        let mut u = Uart16550::new();
        u.write(3, LCR_DLAB | 3);
        u.write(0, 0x01);
        u.write(1, 0x02);
        assert_eq!((u.read(0), u.read(1)), (0x01, 0x02));
        u.write(3, 3);
        assert_eq!((u.read(1), u.read(3), u.pop_tx()), (0, 3, None));
    }

    #[test]
    fn scratch_and_reserved_bits() {
        let mut u = Uart16550::new();
        u.write(7, 0x5A);
        u.write(1, 0xF0);
        u.write(4, 0xE0);
        assert_eq!((u.read(7), u.read(1), u.read(4)), (0x5A, 0, 0));
    }

    #[test]
    fn written_bytes_pop_in_order_and_thre_waits_for_the_host() {
        let mut u = uart(0, FIFO_ON);
        (0..16).for_each(|b| u.write(0, b));
        assert_eq!(u.read(5) & (LSR_THRE | LSR_TEMT), 0);
        u.write(0, 0xFF);
        u.write(2, FIFO_ON | 0x06);
        u.reset();
        let sent: Vec<u8> = std::iter::from_fn(|| u.pop_tx()).collect();
        assert_eq!(sent, (0..16).collect::<Vec<u8>>());
        assert_eq!(u.read(5), LSR_THRE | LSR_TEMT);
    }

    #[test]
    fn thre_interrupt_is_an_event() {
        let mut u = uart(IER_THRE, 0);
        assert!(u.irq(), "enabling with an empty transmitter");
        assert_eq!((u.read(2), u.read(2)), (IIR_THRE, IIR_NONE), "IIR read clears it");
        u.write(1, IER_THRE);
        assert!(!u.irq(), "no new event without a change of IER");
        u.write(1, 0);
        u.write(1, IER_THRE);
        assert!(u.irq(), "re-armed by off and on");
        u.write(0, b'x');
        assert!(!u.irq(), "THR write clears it");
        u.pop_tx();
        assert!(u.irq(), "the byte has left");
    }

    #[test]
    fn iir_read_of_a_higher_interrupt_keeps_thre() {
        let mut u = uart(IER_THRE | IER_RDA, 0);
        u.push_rx(1);
        assert_eq!(u.read(2), IIR_RDA);
        u.read(0);
        assert_eq!(u.read(2), IIR_THRE);
    }

    #[test]
    fn receive_trigger_level_and_time_out() {
        let mut u = uart(IER_RDA, FIFO_ON | 0x80);
        (0..7).for_each(|b| assert!(u.push_rx(b)));
        assert_eq!(u.read(2), IIR_TIMEOUT | IIR_FIFOS);
        u.push_rx(7);
        assert_eq!(u.read(2), IIR_RDA | IIR_FIFOS);
        (0..8).for_each(|b| assert_eq!(u.read(0), b));
        assert_eq!(u.read(2), IIR_NONE | IIR_FIFOS);
        assert_eq!(u.read(5) & LSR_DR, 0);
    }

    #[test]
    fn host_is_held_back_when_the_receiver_is_full() {
        let mut u = uart(0, 0);
        assert_eq!(u.rx_room(), 1);
        assert!(u.push_rx(1) && !u.push_rx(2));
        assert_eq!(u.read(5) & LSR_OE, 0);
        u.write(2, FIFO_ON);
        assert_eq!((u.rx_room(), u.read(5) & LSR_DR), (16, 0), "FIFO enable clears");
        u.write(4, MCR_LOOP);
        assert_eq!(u.rx_room(), 0);
    }

    #[test]
    fn overrun_shows_once_with_the_highest_priority() {
        let mut u = uart(IER_RLS | IER_RDA, FIFO_ON);
        u.write(4, MCR_LOOP);
        (0..17).for_each(|b| u.write(0, b));
        assert_eq!(u.read(2), IIR_RLS | IIR_FIFOS);
        assert_eq!(u.read(5) & (LSR_OE | LSR_DR), LSR_OE | LSR_DR);
        assert_eq!(u.read(5) & LSR_OE, 0);
        (0..16).for_each(|b| assert_eq!(u.read(0), b));

        let mut u = uart(0, 0);
        u.write(4, MCR_LOOP);
        u.write(0, 1);
        u.write(0, 2);
        assert_eq!((u.read(5) & LSR_OE, u.read(0)), (LSR_OE, 2), "RBR is overwritten");
    }

    #[test]
    fn loopback_feeds_modem_outputs_to_inputs() {
        // (MCR, MSR high half); the third is Linux's presence test.
        let rows = [(0x11, 0x20), (0x12, 0x10), (0x1A, 0x90), (0x14, 0x40), (0x1F, 0xF0)];
        for (mcr, msr) in rows {
            let mut u = Uart16550::new();
            assert_eq!(u.read(6), MSR_CONNECTED);
            u.write(4, mcr);
            assert_eq!(u.read(6) & 0xF0, msr, "MCR {mcr:#x}");
        }
    }

    #[test]
    fn loopback_bytes_stay_inside() {
        let mut u = uart(IER_THRE, 0);
        u.write(4, MCR_LOOP | MCR_OUT2);
        u.read(2);
        u.write(0, 0x41);
        assert_eq!((u.irq(), u.out2(), u.pop_tx(), u.read(0)), (true, false, None, 0x41));
    }

    #[test]
    fn modem_status_interrupt_and_ring_trailing_edge() {
        let mut u = uart(IER_MS, 0);
        u.write(4, MCR_LOOP | 0x0F);
        assert_eq!(u.read(6) & 0x0F, 0, "only RI rose");
        u.write(4, MCR_LOOP | 0x0A);
        assert!(u.irq());
        assert_eq!(u.read(2), IIR_MODEM_STATUS);
        assert_eq!(u.read(6) & 0x0F, 0x06, "DDSR and TERI");
        assert!(!u.irq());
    }

    #[test]
    fn linux_16550a_detection() {
        let mut u = Uart16550::new();
        u.write(2, FIFO_ON);
        assert_eq!(u.read(2) >> 6, 3);
        u.write(2, 0);
        assert_eq!(u.read(2) >> 6, 0);
    }

    #[test]
    fn random_accesses() {
        let (mut u, mut rng) = (Uart16550::new(), Rng(1));
        for _ in 0..100_000 {
            let (reg, value) = (rng.below(16) as u16, rng.next() as u8);
            match rng.below(8) {
                0..3 => u.write(reg, value),
                3..6 => drop(u.read(reg)),
                6 => drop(u.push_rx(value)),
                _ => drop(u.pop_tx()),
            }
            assert!(u.rx.len() <= FIFO_SIZE && u.tx.len() <= FIFO_SIZE);
        }
    }
}
