//! What a monitor asks of the board. Nothing is changed by looking; text is made elsewhere.

use super::ports::MMIO;
use super::{Board, Event, Number};
use crate::boot::e820;
use devices::i8259::PicState;
use devices::ioapic::PINS;
use devices::pci::PciConfig;
use emu_core::mem::phys::Writes;

/// The registers of the I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoApicState {
    /// APIC ID.
    pub id: u8,
    /// IOREGSEL.
    pub select: u8,
    /// Redirection entries by pin.
    pub table: [u64; PINS as usize],
    /// Asserted pins, a bit each.
    pub lines: u32,
}

/// A range of ports or guest-physical addresses, and what answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Ports, not addresses.
    pub io: bool,
    /// The first.
    pub base: u64,
    /// How many.
    pub len: u64,
    /// `ram`, `rom` or `i/o`.
    pub kind: &'static str,
    /// Who answers.
    pub name: String,
}

impl Board {
    /// The master and the slave 8259A.
    #[must_use]
    pub fn pics(&self) -> [PicState; 2] {
        self.chips().pic.state()
    }

    /// The I/O APIC.
    #[must_use]
    pub fn io_apic(&self) -> IoApicState {
        let io = &self.chips().ioapic;
        IoApicState { id: io.id(), select: io.select(), table: *io.table(), lines: io.lines() }
    }

    /// The functions on the PCI bus: device and function number (device in
    /// bits 7:3), and configuration space.
    #[must_use]
    pub fn functions(&self) -> Vec<(Number, PciConfig)> {
        self.chips().bus.functions()
    }

    /// Whether the A20 gate is open.
    #[must_use]
    pub fn a20(&self) -> bool {
        let c = self.chips();
        c.i8042.a20() || c.port92.a20()
    }

    /// The reset button is pressed: the machine starts over before its next instruction.
    pub fn press_reset_button(&self) {
        self.chips().event.get_or_insert(Event::Reset);
    }

    /// Who answers where, addresses first, each in their order.
    #[must_use]
    pub fn map(&self) -> Vec<Mapping> {
        let mut c = self.chips();
        let (ram, rom) = (c.backing.ram, c.backing.ram + c.backing.rom);
        let mapping = |io, base, len, kind, name: String| Mapping { io, base, len, kind, name };
        let region = |r: &emu_core::mem::phys::Region| {
            let (kind, name) = match r.offset {
                offset if offset < ram && r.writes == Writes::Ram => ("ram", "pc.ram"),
                offset if offset < ram => ("rom", "pc.ram, write-protected"),
                offset if offset < rom => ("rom", "pc.bios"),
                _ => ("ram", "vga.vram"),
            };
            mapping(false, r.base, r.len, kind, name.to_owned())
        };
        let mut all: Vec<Mapping> = c.memory.regions().iter().map(region).collect();
        let vga = (e820::VGA.start, e820::VGA.end - e820::VGA.start, "vga-lowmem".to_owned());
        let vga = c.bus.vga.is_some().then_some(vga);
        let lapic = c.lapic.base().map(|base| (base, 0x1000, "lapic".to_owned()));
        let chips = MMIO.iter().map(|(base, len, chip)| (*base, *len, chip.name()));
        let chips = chips.chain(lapic).chain(vga);
        all.extend(chips.map(|(base, len, name)| mapping(false, base, len, "i/o", name)));
        let ports = c.ports.iter().map(|p| (u64::from(p.base), u64::from(p.len), p.chip.name()));
        all.extend(ports.map(|(base, len, name)| mapping(true, base, len, "i/o", name)));
        for (number, config) in c.bus.functions() {
            for (bar, _, _) in config.bars() {
                let Some(range) = config.range(bar) else { continue };
                // Plain memory is among the regions.
                if range.io || !all.iter().any(|m| !m.io && m.base == range.base) {
                    let name = format!("pci {:02x}.{} BAR{bar}", number >> 3, number & 7);
                    all.push(mapping(range.io, range.base, range.len, "i/o", name));
                }
            }
        }
        all.sort_by_key(|m| (m.io, m.base));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::board;
    use super::*;
    use emu_core::platform::Platform;

    #[test]
    fn looking_shows_what_was_written() {
        let b = board(64 << 20);
        b.init_pics(0x10);
        let [master, slave] = b.pics();
        assert_eq!((master.base, master.imr, slave.base, slave.imr), (0x20, 0xef, 0x28, 0xff));
        b.route(4, 0x1_0034);
        assert_eq!(b.io_apic().table[4], 0x1_0034);
        let numbers: Vec<Number> = b.functions().into_iter().map(|f| f.0).collect();
        assert_eq!(numbers, [0, 0x08, 0x0b]);
        let id = |n: usize| b.functions()[n].1.dword(0);
        assert_eq!((id(0), id(1)), (0x1237_8086, 0x7000_8086));
        let a20 = b.a20();
        b.port_out(0x92, 1, 2);
        assert!(!a20 || b.a20());
    }

    #[test]
    fn the_map_has_memory_chips_and_ports_in_order() {
        let b = board(64 << 20);
        let map = b.map();
        assert!(map.is_sorted_by_key(|m| (m.io, m.base)));
        let at = |io, base| map.iter().find(|m| m.io == io && m.base == base);
        assert_eq!(at(false, 0).map(|m| (m.kind, m.name.as_str())), Some(("ram", "pc.ram")));
        assert_eq!(at(false, 0xfee0_0000).map(|m| m.name.as_str()), Some("lapic"));
        assert_eq!(at(true, 0x3f8).map(|m| (m.len, m.name.as_str())), Some((8, "com(0)")));
    }

    #[test]
    fn the_reset_button_is_an_event() {
        let b = board(64 << 20);
        b.press_reset_button();
        assert_eq!(b.take_event(), Some(Event::Reset));
    }
}
