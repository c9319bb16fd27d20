//! The functions on PCI bus 0: whose registers are where, whose pins drive which line, and the
//! messages they send.
//!
//! Where base address registers decode is kept in a list that is made anew when a guest writes
//! configuration space: an access is looked up there, and a function gets it whole, as far as it
//! lies within one register's range.
//!
//! Source: PCI Local Bus Specification 3.0; interrupt pins are wired to PIRQ[A:D]# as on an
//! i440FX board ([`acpi::pirq_of`]).

use super::memory::Mapped;
use crate::acpi;
use crate::boot::e820;
use devices::ide::Ide;
use devices::pci::{Bar, Host, Identity, Message, PciConfig, PciDevice, Range};
use devices::pci_host::{Functions, PciFunction, PciHost};
use devices::piix::{IsaBridge, PowerManagement};
use devices::vga::{FRAME_BUFFER, Vga};
use emu_core::mem::Memory;
use emu_core::mem::phys::Writes;

/// Device and function number: device in bits 7:3, function in 2:0.
pub(crate) type Number = u8;

/// Where the functions of the south bridge, and the VGA, are.
const ISA: Number = 1 << 3;
const IDE: Number = 1 << 3 | 1;
const POWER: Number = 1 << 3 | 3;
const VGA: Number = 2 << 3;
/// The configuration space offset of the interrupt pin.
const PIN: usize = 0x3d;

/// A range of addresses or ports, and the base address register that decodes it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Decoded {
    range: Range,
    /// Its place among the devices.
    device: usize,
    bar: usize,
}

/// The bus.
pub(crate) struct Bus {
    host: PciHost,
    pub(crate) isa: IsaBridge,
    pub(crate) power: PowerManagement,
    pub(crate) vga: Option<Vga>,
    pub(crate) ide: Option<Ide>,
    /// All other functions.
    slots: Vec<(Number, Box<dyn PciDevice>)>,
    decoded: Vec<Decoded>,
}

impl Bus {
    /// A bus with the functions of the chipset and `slots`.
    pub(crate) fn new(
        vga: Option<Vga>,
        ide: Option<Ide>,
        slots: Vec<(Number, Box<dyn PciDevice>)>,
    ) -> Bus {
        Bus {
            host: PciHost::new(),
            isa: IsaBridge::new(),
            power: PowerManagement::new(),
            vga,
            ide,
            slots,
            decoded: Vec::new(),
        }
    }

    /// The host bridge.
    pub(crate) fn host(&self) -> &PciHost {
        &self.host
    }

    fn devices(&mut self) -> impl Iterator<Item = (Number, &mut dyn PciDevice)> {
        let chipset: [(Number, &mut dyn PciDevice); 2] =
            [(ISA, &mut self.isa), (POWER, &mut self.power)];
        let vga = self.vga.iter_mut().map(|d| (VGA, d as &mut dyn PciDevice));
        let ide = self.ide.iter_mut().map(|d| (IDE, d as &mut dyn PciDevice));
        let slots = self.slots.iter_mut().map(|(n, d)| (*n, &mut **d as _));
        chipset.into_iter().chain(vga).chain(ide).chain(slots)
    }

    /// All functions by number, with their configuration spaces.
    pub(crate) fn functions(&mut self) -> Vec<(Number, PciConfig)> {
        let nothing = Identity { vendor: 0, device: 0, class: 0, revision: 0, subsystem: (0, 0) };
        let mut host = PciConfig::new(nothing, 0);
        host.set(0, self.host.config());
        let mut all: Vec<_> = self.devices().map(|(n, d)| (n, d.config().clone())).collect();
        all.push((0, host));
        all.sort_by_key(|(number, _)| *number);
        all
    }

    /// System reset.
    pub(crate) fn reset(&mut self) {
        self.host.reset();
        self.devices().for_each(|(_, d)| d.reset());
        self.decode();
    }

    /// Brings all functions to the time that has come.
    pub(crate) fn advance(&mut self, host: Host) {
        self.devices().for_each(|(_, d)| d.advance(host));
    }

    /// The next moment at which a function does something by itself.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.slots.iter().filter_map(|(_, d)| d.deadline()).min()
    }

    /// Reads a configuration port.
    pub(crate) fn config_read(&mut self, reg: u16, size: u8) -> u32 {
        self.with_functions(|host, functions| host.read(reg, size, functions))
    }

    /// Writes a configuration port.
    pub(crate) fn config_write(&mut self, with: Host, reg: u16, size: u8, value: u32) {
        self.with_functions(|host, functions| host.write(reg, size, value, functions));
        if reg < 4 {
            return;
        }
        if let Some((number, offset)) = self.host.selected() {
            let found = self.devices().find(|(n, _)| *n == number);
            found.into_iter().for_each(|(_, d)| d.configured(with, offset | reg as u8 & 3, size));
        }
        self.decode();
    }

    fn with_functions<R>(&mut self, f: impl FnOnce(&mut PciHost, Functions) -> R) -> R {
        let mut host = std::mem::take(&mut self.host);
        let mut functions: Vec<(Number, &mut dyn PciFunction)> =
            self.devices().map(|(n, d)| (n, d.config_mut() as &mut dyn PciFunction)).collect();
        let result = f(&mut host, &mut functions);
        self.host = host;
        result
    }

    /// Looks at all base address registers anew.
    fn decode(&mut self) {
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        for (device, (_, d)) in self.devices().enumerate() {
            let config = d.config();
            let bars = config.bars().filter_map(|(bar, _, _)| Some((bar, config.range(bar)?)));
            decoded.extend(bars.map(|(bar, range)| Decoded { range, device, bar }));
        }
        self.decoded = decoded;
    }

    /// Who takes an access of `size` bytes at a port (`io`) or an address, and at which offset.
    fn find(&self, io: bool, at: u64, size: u8) -> Option<(usize, usize, u64)> {
        self.decoded.iter().filter(|d| d.range.io == io).find_map(|d| {
            let offset = at.wrapping_sub(d.range.base);
            let inside = offset < d.range.len && u64::from(size) <= d.range.len - offset;
            inside.then_some((d.device, d.bar, offset))
        })
    }

    /// Reads a register of a function; `None` when none is there.
    pub(crate) fn read(&mut self, host: Host, io: bool, at: u64, size: u8) -> Option<u64> {
        let (device, bar, offset) = self.find(io, at, size)?;
        Some(self.devices().nth(device)?.1.read(host, bar, offset, size))
    }

    /// Writes a register of a function; `None` when none is there.
    pub(crate) fn write(
        &mut self,
        host: Host,
        io: bool,
        at: u64,
        size: u8,
        value: u64,
    ) -> Option<()> {
        let (device, bar, offset) = self.find(io, at, size)?;
        self.devices().nth(device)?.1.write(host, bar, offset, size, value);
        Some(())
    }

    /// The ISA interrupts that functions ask for, a bit each.
    pub(crate) fn lines(&mut self) -> u16 {
        let mut lines = 0;
        for (number, device) in &mut self.slots {
            let device = &mut **device;
            let (level, pin) = (device.intx(), device.config().byte(PIN));
            device.config_mut().show_intx(level);
            if level && pin != 0 && device.config().intx_enabled() {
                let irq = self.isa.route(acpi::pirq_of(*number >> 3, pin - 1));
                lines |= irq.map_or(0, |irq| 1 << irq);
            }
        }
        lines
    }

    /// Takes the messages that functions have sent.
    pub(crate) fn take_messages(&mut self) -> Vec<Message> {
        self.slots.iter_mut().flat_map(|(_, d)| d.config_mut().take_messages()).collect()
    }

    /// Memory of functions that is plain RAM for now.
    pub(crate) fn mapped(&self) -> [Option<Mapped>; 2] {
        let Some(vga) = &self.vga else { return [None; 2] };
        let (start, writes) = (vga.memory().start(), Writes::Ram);
        let frame_buffer = vga.config().range(FRAME_BUFFER);
        let frame_buffer =
            frame_buffer.map(|r| Mapped { base: r.base, len: r.len, offset: start, writes });
        let window = vga.window().filter(|w| (u64::from(w.at) | w.offset | w.len) & 4095 == 0);
        let window = window.map(|w| Mapped {
            base: e820::VGA.start + u64::from(w.at),
            len: w.len,
            offset: start + w.offset,
            writes,
        });
        [frame_buffer, window]
    }

    /// Does what firmware does before it starts a kernel: places and enables all base address
    /// registers from `ports` and `memory` on, and opens the shadow RAM.
    pub(crate) fn set_up(&mut self, with: Host, mut ports: u32, mut memory: u32) {
        const PAM0: u32 = 0x8000_0058;
        let write = |bus: &mut Bus, address: u32, value| {
            bus.config_write(with, 0, 4, address);
            bus.config_write(with, 4, 4, value);
        };
        write(self, PAM0, 0x3333_3000);
        write(self, PAM0 + 4, 0x3333_3333);
        // Both IDE channels decode their ports.
        if self.ide.is_some() {
            write(self, 1 << 31 | u32::from(IDE) << 8 | 0x40, 0x8000_8000);
        }
        let bars: Vec<(Number, usize, Bar, u64)> = self
            .devices()
            .flat_map(|(n, d)| {
                d.config()
                    .bars()
                    .map(move |(bar, kind, len)| (n, bar, kind, len))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (number, bar, kind, len) in bars.into_iter().filter(|b| b.2 != Bar::Rom) {
            let next = if kind == Bar::Io { &mut ports } else { &mut memory };
            let base = next.next_multiple_of(len as u32);
            *next = base + len as u32;
            let address = 1 << 31 | u32::from(number) << 8;
            write(self, address | 0x10 + 4 * bar as u32, base);
            write(self, address | 4, 7);
        }
        for (n, irq) in acpi::AcpiLayout::default().pirq.into_iter().enumerate() {
            self.isa.set_route(n, irq);
        }
        self.power.place(acpi::PM1A_EVT);
    }
}

/// What devices are lent.
pub(crate) fn lend(memory: &Memory, now: u64) -> Host<'_> {
    Host { now, memory }
}
