//! The PC's two 8259A interrupt controllers, the slave on IR2 of the master.
//!
//! Each [`Pic`] keeps the pin levels and the edges latched since the last acknowledge; IRR is made
//! from both under the trigger mode (ELCR, or LTIM of ICW1). The request that INT reports is always
//! computed from IRR, IMR, ISR and the modes, never stored, so that it cannot go stale.
//!
//! Two departures from the bare datasheet, both as QEMU has them. An edge stays latched when its
//! line falls before INTA, because the pulse of a timer may be over when it is delivered (the
//! datasheet would turn it into a default IR7). And the slave's INT both latches an edge at IR2 and
//! counts as a level there: the level keeps a second slave request alive after the first
//! is acknowledged, the edge makes a withdrawn request end as the spurious IRQ 15.
//!
//! Source: Intel 8259A datasheet (231468), ICWs, OCWs, "Fully Nested Mode" to "Cascade Mode";
//! 82371SB (PIIX3) datasheet, ELCR.

const ICW1: u8 = 0x10;
const ICW1_IC4: u8 = 0x01;
const ICW1_SNGL: u8 = 0x02;
const ICW1_LTIM: u8 = 0x08;
const ICW4_AEOI: u8 = 0x02;
const ICW4_SFNM: u8 = 0x10;
const OCW3: u8 = 0x08;
const OCW3_RIS: u8 = 0x01;
const OCW3_RR: u8 = 0x02;
const OCW3_P: u8 = 0x04;
const OCW3_SMM: u8 = 0x20;
const OCW3_ESMM: u8 = 0x40;

/// The level reported when no request is left at INTA.
const DEFAULT_IR: u8 = 7;
/// The master's input that the slave drives.
const CASCADE_IR: u8 = 2;

/// The next initialization command word expected at the data port.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Init {
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq)]
pub struct Pic {
    /// Inputs whose level counts beside the edge: IR2 of the master.
    cascade: u8,
    /// ELCR bits that can be set.
    elcr_mask: u8,
    elcr: u8,
    lines: u8,
    edges: u8,
    imr: u8,
    isr: u8,
    /// ICW2: bits 7:3 of the vector.
    base: u8,
    /// The level of highest priority.
    top: u8,
    init: Init,
    icw1: u8,
    icw4: u8,
    special_mask: bool,
    rotate_in_aeoi: bool,
    read_isr: bool,
    poll: bool,
}

impl Pic {
    fn new(cascade: u8, elcr_mask: u8) -> Pic {
        Pic {
            cascade,
            elcr_mask,
            elcr: 0,
            lines: 0,
            edges: 0,
            imr: 0,
            isr: 0,
            base: 0,
            top: 0,
            init: Init::Done,
            icw1: 0,
            icw4: 0,
            special_mask: false,
            rotate_in_aeoi: false,
            read_isr: false,
            poll: false,
        }
    }

    fn level_triggered(&self) -> u8 {
        if self.icw1 & ICW1_LTIM != 0 { 0xFF } else { self.elcr }
    }

    fn irr(&self) -> u8 {
        self.edges | self.lines & (self.level_triggered() | self.cascade)
    }

    fn set_line(&mut self, ir: u8, level: bool) {
        let bit = 1 << (ir & 7);
        if !level {
            self.lines &= !bit;
        } else {
            self.edges |= bit & !self.lines & !self.level_triggered();
            self.lines |= bit;
        }
    }

    /// The level in `set` of highest priority.
    fn first(&self, set: u8) -> Option<u8> {
        let rotated = set.rotate_right(u32::from(self.top));
        (set != 0).then(|| (rotated.trailing_zeros() as u8).wrapping_add(self.top) & 7)
    }

    /// Place of `ir` in the order of priority, 0 the highest.
    fn rank(&self, ir: u8) -> u8 {
        ir.wrapping_sub(self.top) & 7
    }

    /// The request that INT stands for.
    fn pending(&self) -> Option<u8> {
        let ir = self.first(self.irr() & !self.imr)?;
        let masked = if self.special_mask { self.imr } else { 0 };
        let Some(in_service) = self.first(self.isr & !masked) else { return Some(ir) };
        // In special fully nested mode the slave may interrupt its own service.
        let nested = self.icw4 & ICW4_SFNM != 0 && self.cascade & 1 << ir != 0;
        let higher = self.rank(ir) < self.rank(in_service) || nested && ir == in_service;
        higher.then_some(ir)
    }

    fn acknowledge(&mut self, ir: u8) {
        let bit = 1 << ir;
        self.edges &= !bit;
        if self.icw4 & ICW4_AEOI == 0 {
            self.isr |= bit;
        } else if self.rotate_in_aeoi {
            self.top = (ir + 1) & 7;
        }
    }

    fn read(&mut self, data_port: bool) -> u8 {
        if self.poll {
            self.poll = false;
            let pending = self.pending();
            pending.inspect(|&ir| self.acknowledge(ir));
            return pending.map_or(0, |ir| 0x80 | ir);
        }
        match (data_port, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            *self = Pic {
                elcr: self.elcr,
                lines: self.lines,
                base: self.base,
                icw1: value,
                init: Init::Icw2,
                ..Pic::new(self.cascade, self.elcr_mask)
            };
        } else if value & OCW3 != 0 {
            self.poll = value & OCW3_P != 0;
            if value & OCW3_RR != 0 {
                self.read_isr = value & OCW3_RIS != 0;
            }
            if value & OCW3_ESMM != 0 {
                self.special_mask = value & OCW3_SMM != 0;
            }
        } else {
            self.ocw2(value >> 5, value & 7);
        }
    }

    /// OCW2: `command` is R, SL, EOI.
    fn ocw2(&mut self, command: u8, level: u8) {
        // A non-specific EOI in special mask mode passes over levels that IMR masks.
        let masked = if self.special_mask { self.imr } else { 0 };
        let highest = self.first(self.isr & !masked);
        let (end, rotate) = match command {
            0b001 => (highest, false),
            0b011 => (Some(level), false),
            0b101 => (highest, true),
            0b111 => (Some(level), true),
            0b110 => {
                self.top = (level + 1) & 7;
                (None, false)
            }
            0b000 | 0b100 => {
                self.rotate_in_aeoi = command == 0b100;
                (None, false)
            }
            _ => (None, false),
        };
        if let Some(ir) = end {
            self.isr &= !(1 << ir);
            if rotate {
                self.top = (ir + 1) & 7;
            }
        }
    }

    fn write_data(&mut self, value: u8) {
        let ic4 = if self.icw1 & ICW1_IC4 != 0 { Init::Icw4 } else { Init::Done };
        self.init = match self.init {
            Init::Done => {
                self.imr = value;
                Init::Done
            }
            Init::Icw2 => {
                self.base = value & 0xF8;
                if self.icw1 & ICW1_SNGL != 0 { ic4 } else { Init::Icw3 }
            }
            // The wiring of the cascade is fixed: ICW3 changes nothing.
            Init::Icw3 => ic4,
            Init::Icw4 => {
                self.icw4 = value;
                Init::Done
            }
        };
    }

    fn write_elcr(&mut self, value: u8) {
        self.elcr = value & self.elcr_mask;
        self.edges &= !self.level_triggered();
    }
}

/// The registers of one 8259A, to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the datasheet's
pub struct PicState {
    pub irr: u8,
    pub imr: u8,
    pub isr: u8,
    pub elcr: u8,
    /// The level of highest priority.
    pub top: u8,
    /// Bits 7:3 of the vectors.
    pub base: u8,
    /// The command port reads ISR.
    pub read_isr: bool,
    /// Special fully nested mode.
    pub sfnm: bool,
}

/// The registers of the pair, with their PC ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PicReg {
    /// 0x20: master ICW1, OCW2, OCW3; reads IRR or ISR.
    MasterCommand,
    /// 0x21: master ICW2-4, OCW1 (IMR).
    MasterData,
    /// 0xA0: slave ICW1, OCW2, OCW3; reads IRR or ISR.
    SlaveCommand,
    /// 0xA1: slave ICW2-4, OCW1 (IMR).
    SlaveData,
    /// 0x4D0: edge/level control of IRQ 0-7.
    MasterElcr,
    /// 0x4D1: edge/level control of IRQ 8-15.
    SlaveElcr,
}

/// Two cascaded 8259As.
#[derive(Clone, Debug, PartialEq)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

impl Default for PicPair {
    fn default() -> PicPair {
        PicPair::new()
    }
}

impl PicPair {
    /// Both chips after power-up, all lines low.
    #[must_use]
    pub fn new() -> PicPair {
        // IRQ 0, 1, 2, 8 and 13 are always edge-triggered.
        PicPair { master: Pic::new(1 << CASCADE_IR, 0xF8), slave: Pic::new(0, 0xDE) }
    }

    /// The registers of master and slave.
    #[must_use]
    pub fn state(&self) -> [PicState; 2] {
        [&self.master, &self.slave].map(|p| PicState {
            irr: p.irr(),
            imr: p.imr,
            isr: p.isr,
            elcr: p.elcr,
            top: p.top,
            base: p.base,
            read_isr: p.read_isr,
            sfnm: p.icw4 & ICW4_SFNM != 0,
        })
    }

    /// System reset: all registers, while the lines keep their levels.
    pub fn reset(&mut self) {
        let lines = (self.master.lines & !self.master.cascade, self.slave.lines);
        *self = PicPair::new();
        (self.master.lines, self.slave.lines) = lines;
    }

    /// Reads a register. In poll mode this is an acknowledge.
    pub fn read(&mut self, reg: PicReg) -> u8 {
        let value = match reg {
            PicReg::MasterCommand => self.master.read(false),
            PicReg::MasterData => self.master.read(true),
            PicReg::SlaveCommand => self.slave.read(false),
            PicReg::SlaveData => self.slave.read(true),
            PicReg::MasterElcr => self.master.elcr,
            PicReg::SlaveElcr => self.slave.elcr,
        };
        self.cascade();
        value
    }

    /// Writes a register.
    pub fn write(&mut self, reg: PicReg, value: u8) {
        match reg {
            PicReg::MasterCommand => self.master.write_command(value),
            PicReg::MasterData => self.master.write_data(value),
            PicReg::SlaveCommand => self.slave.write_command(value),
            PicReg::SlaveData => self.slave.write_data(value),
            PicReg::MasterElcr => self.master.write_elcr(value),
            PicReg::SlaveElcr => self.slave.write_elcr(value),
        }
        self.cascade();
    }

    /// Sets the level of ISA interrupt `line` (0..16). IRQ 2 has no pin and is ignored.
    pub fn set_irq(&mut self, line: u8, level: bool) {
        match line {
            CASCADE_IR => {}
            0..8 => self.master.set_line(line, level),
            8..16 => self.slave.set_line(line - 8, level),
            _ => {}
        }
        self.cascade();
    }

    /// The INTR output to the processor.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.master.pending().is_some()
    }

    /// The INTA cycles: takes the request of highest priority into service and gives its vector;
    /// without a request, the vector of IRQ 7 (or 15, when only the slave's has gone).
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.pending() {
            None => self.master.base | DEFAULT_IR,
            Some(CASCADE_IR) => {
                self.master.acknowledge(CASCADE_IR);
                let pending = self.slave.pending();
                pending.inspect(|&ir| self.slave.acknowledge(ir));
                self.slave.base | pending.unwrap_or(DEFAULT_IR)
            }
            Some(ir) => {
                self.master.acknowledge(ir);
                self.master.base | ir
            }
        };
        self.cascade();
        vector
    }

    fn cascade(&mut self) {
        self.master.set_line(CASCADE_IR, self.slave.pending().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;
    use PicReg::*;

    /// Initialized as a PC does, vectors 0x20 and 0x28, nothing masked.
    fn pair(master_icw4: u8) -> PicPair {
        let mut pics = PicPair::new();
        let icws: [(PicReg, [u8; 4]); 2] = [
            (MasterCommand, [0x11, 0x20, 0x04, master_icw4]),
            (SlaveCommand, [0x11, 0x28, 0x02, 0x01]),
        ];
        for (command, [icw1, icw2, icw3, icw4]) in icws {
            let data = if command == MasterCommand { MasterData } else { SlaveData };
            pics.write(command, icw1);
            [icw2, icw3, icw4, 0].into_iter().for_each(|word| pics.write(data, word));
        }
        pics
    }

    fn pulse(pics: &mut PicPair, line: u8) {
        pics.set_irq(line, true);
        pics.set_irq(line, false);
    }

    #[test]
    fn vectors_of_master_and_slave() {
        let mut pics = pair(1);
        assert!(!pics.intr());
        for (line, vector) in [(0, 0x20), (7, 0x27), (8, 0x28), (15, 0x2F)] {
            pulse(&mut pics, line);
            assert!(pics.intr());
            assert_eq!(pics.acknowledge(), vector);
            assert!(!pics.intr());
            pics.write(SlaveCommand, 0x20);
            pics.write(MasterCommand, 0x20);
        }
    }

    #[test]
    fn fully_nested_priority() {
        let mut pics = pair(1);
        pulse(&mut pics, 4);
        pulse(&mut pics, 10);
        assert_eq!(pics.acknowledge(), 0x2A, "the slave is IR2");
        assert!(!pics.intr(), "IR4 waits for the end of IR2");
        pulse(&mut pics, 1);
        assert_eq!(pics.acknowledge(), 0x21);
        pics.write(MasterCommand, 0x20);
        pics.write(MasterCommand, 0x20);
        assert_eq!(pics.acknowledge(), 0x24);
    }

    #[test]
    fn imr_masks_and_irr_isr_read_back() {
        let mut pics = pair(1);
        pics.write(MasterData, 0x10);
        pulse(&mut pics, 4);
        assert!(!pics.intr());
        assert_eq!((pics.read(MasterData), pics.read(MasterCommand)), (0x10, 0x10));
        pics.write(MasterData, 0);
        assert_eq!(pics.acknowledge(), 0x24);
        assert_eq!(pics.read(MasterCommand), 0);
        pics.write(MasterCommand, 0x0B);
        assert_eq!(pics.read(MasterCommand), 0x10);
        pics.write(MasterCommand, 0x0A);
        assert_eq!(pics.read(MasterCommand), 0);
    }

    #[test]
    fn an_edge_interrupts_once_while_the_line_stays_high() {
        let mut pics = pair(1);
        pics.set_irq(4, true);
        pics.acknowledge();
        pics.write(MasterCommand, 0x20);
        pics.set_irq(4, true);
        assert!(!pics.intr());
        pics.set_irq(4, false);
        pics.set_irq(4, true);
        assert!(pics.intr());
    }

    #[test]
    fn a_level_interrupts_until_the_line_falls() {
        let mut pics = pair(1);
        pics.write(SlaveElcr, 0xFF);
        pics.write(MasterElcr, 0xFF);
        assert_eq!((pics.read(MasterElcr), pics.read(SlaveElcr)), (0xF8, 0xDE));
        pics.set_irq(11, true);
        for _ in 0..2 {
            assert_eq!(pics.acknowledge(), 0x2B);
            pics.write(SlaveCommand, 0x20);
            pics.write(MasterCommand, 0x20);
            assert!(pics.intr());
        }
        pics.set_irq(11, false);
        assert_eq!(pics.acknowledge(), 0x2F, "the edge at IR2 is still latched");
        pics.write(MasterCommand, 0x20);
        assert!(!pics.intr());
    }

    #[test]
    fn icw1_ltim_makes_all_inputs_level_triggered() {
        let mut pics = pair(1);
        pics.write(MasterCommand, 0x1B);
        pics.write(MasterData, 0x20);
        pics.write(MasterData, 0x01);
        pics.set_irq(3, true);
        assert_eq!(pics.acknowledge(), 0x23);
        pics.write(MasterCommand, 0x20);
        assert!(pics.intr());
        pics.set_irq(3, false);
        assert!(!pics.intr());
    }

    #[test]
    fn a_request_that_has_gone_is_irq_7_out_of_service() {
        let mut pics = pair(1);
        assert_eq!(pics.acknowledge(), 0x27);
        pics.write(MasterCommand, 0x0B);
        assert_eq!(pics.read(MasterCommand), 0);
    }

    #[test]
    fn a_slave_request_that_has_gone_is_irq_15_with_the_master_in_service() {
        let mut pics = pair(1);
        pulse(&mut pics, 9);
        pics.write(SlaveData, 0xFF);
        assert!(pics.intr());
        assert_eq!(pics.acknowledge(), 0x2F);
        pics.write(MasterCommand, 0x0B);
        pics.write(SlaveCommand, 0x0B);
        assert_eq!((pics.read(MasterCommand), pics.read(SlaveCommand)), (0x04, 0));
    }

    #[test]
    fn two_slave_requests_are_both_delivered() {
        let mut pics = pair(1);
        pulse(&mut pics, 14);
        assert_eq!(pics.acknowledge(), 0x2E);
        pulse(&mut pics, 8);
        pulse(&mut pics, 15);
        assert!(!pics.intr(), "IR2 is in service");
        pics.write(SlaveCommand, 0x20);
        pics.write(MasterCommand, 0x20);
        assert_eq!(pics.acknowledge(), 0x28);
        pics.write(SlaveCommand, 0x20);
        pics.write(MasterCommand, 0x20);
        assert_eq!(pics.acknowledge(), 0x2F);
        pics.write(SlaveCommand, 0x0B);
        assert_eq!(pics.read(SlaveCommand), 0x80, "a real IRQ 15");
    }

    #[test]
    fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
        let mut pics = pair(1 | ICW4_SFNM);
        pulse(&mut pics, 12);
        assert_eq!(pics.acknowledge(), 0x2C);
        pulse(&mut pics, 3);
        assert!(!pics.intr(), "IR3 is below IR2");
        pulse(&mut pics, 8);
        assert_eq!(pics.acknowledge(), 0x28);
    }

    #[test]
    fn specific_eoi_ends_the_named_level() {
        let mut pics = pair(1);
        pulse(&mut pics, 6);
        pics.acknowledge();
        pulse(&mut pics, 1);
        pics.acknowledge();
        pics.write(MasterCommand, 0x66);
        pics.write(MasterCommand, 0x0B);
        assert_eq!(pics.read(MasterCommand), 0x02);
    }

    #[test]
    fn automatic_eoi_with_rotation() {
        let mut pics = pair(1 | ICW4_AEOI);
        pics.write(MasterCommand, 0x80);
        pulse(&mut pics, 3);
        assert_eq!(pics.acknowledge(), 0x23);
        pulse(&mut pics, 3);
        pulse(&mut pics, 5);
        assert_eq!(pics.acknowledge(), 0x25, "IR3 has become the lowest");
        pics.write(MasterCommand, 0x00);
        assert_eq!(pics.acknowledge(), 0x23);
        assert!(!pics.intr());
    }

    #[test]
    fn rotation_on_eoi_and_set_priority() {
        let mut pics = pair(1);
        pulse(&mut pics, 4);
        pics.acknowledge();
        pics.write(MasterCommand, 0xA0);
        pulse(&mut pics, 4);
        pulse(&mut pics, 6);
        assert_eq!(pics.acknowledge(), 0x26);
        pics.write(MasterCommand, 0xE6);
        assert_eq!(pics.acknowledge(), 0x24);
        pics.write(MasterCommand, 0x64);
        pics.write(MasterCommand, 0xC0);
        pulse(&mut pics, 0);
        pulse(&mut pics, 7);
        assert_eq!(pics.acknowledge(), 0x27, "IR0 is the lowest");
    }

    #[test]
    fn special_mask_mode_opens_lower_levels() {
        let mut pics = pair(1);
        pulse(&mut pics, 1);
        pics.acknowledge();
        pulse(&mut pics, 5);
        assert!(!pics.intr());
        pics.write(MasterData, 0x02);
        pics.write(MasterCommand, 0x68);
        assert_eq!(pics.acknowledge(), 0x25);
        pics.write(MasterCommand, 0x20);
        pics.write(MasterCommand, 0x0B);
        assert_eq!(pics.read(MasterCommand), 0x02, "EOI passes over the masked level");
        pics.write(MasterCommand, 0x48);
        pulse(&mut pics, 5);
        assert!(!pics.intr());
    }

    #[test]
    fn poll_acknowledges_without_inta() {
        let mut pics = pair(1);
        pics.write(MasterCommand, 0x0C);
        assert_eq!(pics.read(MasterCommand), 0);
        pulse(&mut pics, 5);
        pics.write(MasterCommand, 0x0C);
        assert_eq!(pics.read(MasterCommand), 0x85);
        assert!(!pics.intr());
        assert_eq!(pics.read(MasterData), 0, "one read only");
    }

    #[test]
    fn icw1_forgets_edges_mask_and_service_but_not_levels() {
        let mut pics = pair(1);
        pics.set_irq(4, true);
        pics.acknowledge();
        pulse(&mut pics, 5);
        pics.write(MasterData, 0xFF);
        pics.write(MasterCommand, 0x11);
        [0x30, 4, 1].into_iter().for_each(|word| pics.write(MasterData, word));
        assert_eq!((pics.read(MasterData), pics.intr()), (0, false));
        pics.set_irq(4, true);
        assert!(!pics.intr(), "no new edge");
        pics.set_irq(4, false);
        pics.set_irq(4, true);
        assert_eq!(pics.acknowledge(), 0x34);
    }

    #[test]
    fn irq_2_and_lines_past_15_do_not_exist() {
        let mut pics = pair(1);
        let before = pics.clone();
        [2, 16, 255].into_iter().for_each(|line| pics.set_irq(line, true));
        assert_eq!(pics, before);
    }

    #[test]
    fn random_accesses() {
        let regs = [MasterCommand, MasterData, SlaveCommand, SlaveData, MasterElcr, SlaveElcr];
        let (mut pics, mut rng) = (PicPair::new(), Rng(1));
        for _ in 0..100_000 {
            let (reg, value) = (regs[rng.below(6) as usize], rng.next() as u8);
            match rng.below(4) {
                0 => pics.write(reg, value),
                1 => drop(pics.read(reg)),
                2 => pics.set_irq(value & 31, value & 32 != 0),
                _ if pics.intr() => drop(pics.acknowledge()),
                _ => {}
            }
            assert!(pics.master.top < 8 && pics.slave.top < 8);
            assert_eq!(pics.master.lines & 4 != 0, pics.slave.pending().is_some());
        }
    }
}
