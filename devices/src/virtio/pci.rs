//! The PCI transport of virtio (4.1).
//!
//! | place | what |
//! |---|---|
//! | BAR 1 | MSI-X: the table, from 800H the pending bits |
//! | BAR 4 + 0000H | common configuration (4.1.4.3) |
//! | BAR 4 + 1000H | ISR status (4.1.4.5) |
//! | BAR 4 + 2000H | the device's configuration (4.1.4.6) |
//! | BAR 4 + 3000H | notifications, 4 bytes a queue (4.1.4.4) |
//! | configuration space | a capability for each, and one for access without BARs (4.1.4.9) |
//!
//! A notification, and [`PciDevice::advance`], let the device work on all that there is; then the
//! queues are asked for interrupts. The device works only while the driver is ready (DRIVER_OK),
//! no queue is broken and the function may master the bus.
//!
//! The window in configuration space shows what is behind it as of the last write to its
//! registers: reading configuration space has no hook. So it shows ISR status without clearing it.

use super::queue::Queue;
use super::{Bus, Device};
use crate::pci::{Bar, Host, Identity, PciConfig, PciDevice};
use std::ops::Range;

const VENDOR: u16 = 0x1af4;
/// Device IDs begin here (4.1.2).
const FIRST_DEVICE: u16 = 0x1040;
const MSIX_BAR: usize = 1;
const PENDING: u64 = 0x800;
const REGISTERS_BAR: usize = 4;
const REGISTERS: u64 = 0x4000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_STEP: u64 = 4;
const CAP_VENDOR: u8 = 9;
/// Capability types (4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;
/// Features of queues and transport (6).
const F_INDIRECT_DESC: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;
const F_RING_PACKED: u64 = 1 << 34;
const OFFERED: u64 = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1 | F_RING_PACKED;
/// Device status (2.1).
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 0x40;
const STATUS: u8 = 0x8f;
const NO_VECTOR: u16 = 0xffff;
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;
/// Bytes of the common configuration: up to `queue_device`.
const COMMON: usize = 0x38;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    generation: u8,
    queue_select: u16,
    isr: u8,
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D: Device> {
    config: PciConfig,
    device: D,
    queues: Vec<Queue>,
    /// MSI-X vectors of the queues, and of configuration changes.
    vectors: Vec<u16>,
    config_vector: u16,
    r: Registers,
    /// The window in configuration space.
    window: usize,
}

fn capability(kind: u8, bar: usize, offset: u64, len: u64, more: &[u8]) -> Vec<u8> {
    let size = 16 + more.len() as u8;
    let mut body = vec![size, kind, bar as u8, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((len as u32).to_le_bytes());
    body.extend(more);
    body
}

impl<D: Device> VirtioPci<D> {
    /// A function with this device in it.
    #[must_use]
    pub fn new(device: D) -> VirtioPci<D> {
        let kind = device.kind();
        let id = Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + kind.id,
            class: kind.class,
            revision: 1,
            subsystem: (VENDOR, 0x1100),
        };
        let mut config = PciConfig::new(id, 1);
        config.bar(MSIX_BAR, Bar::Memory32, 0x1000);
        config.bar(REGISTERS_BAR, Bar::Memory64, REGISTERS);
        config.add_msix(MSIX_BAR as u8, kind.queues.len() + 1, 0, PENDING as u32);
        let mut add = |kind, offset, len, more: &[u8]| {
            let bar = if kind == PCI_CFG { 0 } else { REGISTERS_BAR };
            config.capability(CAP_VENDOR, &capability(kind, bar, offset, len, more))
        };
        add(COMMON_CFG, 0, COMMON as u64, &[]);
        add(ISR_CFG, ISR, 1, &[]);
        add(DEVICE_CFG, DEVICE, 0x1000, &[]);
        add(NOTIFY_CFG, NOTIFY, 0x1000, &(NOTIFY_STEP as u32).to_le_bytes());
        let window = add(PCI_CFG, 0, 0, &[0; 4]);
        // Its BAR, offset, length and data.
        config.writable(window + 4, &[0xff]);
        config.writable(window + 8, &[0xff; 12]);
        let queues = kind.queues.iter().map(|&n| Queue::new(n)).collect();
        let vectors = vec![NO_VECTOR; kind.queues.len()];
        let r = Registers::default();
        VirtioPci { config, device, queues, vectors, config_vector: NO_VECTOR, r, window }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device, for its backend's end. What this changes takes effect at the next
    /// [`advance`](PciDevice::advance).
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    fn offered(&self) -> u64 {
        OFFERED | self.device.features()
    }

    /// The device's reset, by writing 0 to its status.
    fn reset_device(&mut self) {
        self.r = Registers::default();
        self.config_vector = NO_VECTOR;
        self.vectors.fill(NO_VECTOR);
        self.queues.iter_mut().for_each(|q| *q = Queue::new(q.max));
        self.device.reset();
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset_device();
        }
        let mut status = value & STATUS | self.r.status & NEEDS_RESET;
        let fresh = status & FEATURES_OK & !self.r.status != 0;
        if fresh {
            let accepted = self.r.driver_features;
            if accepted & !self.offered() != 0 || accepted & F_VERSION_1 == 0 {
                status &= !FEATURES_OK;
            } else {
                self.device.negotiated(accepted);
            }
        }
        self.r.status = status;
    }

    fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.r.queue_select))
    }

    fn common(&self) -> [u8; COMMON] {
        let mut b = [0; COMMON];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let (r, select) = (&self.r, usize::from(self.r.queue_select));
        put(0x00, &r.device_feature_select.to_le_bytes());
        put(0x04, &half(self.offered(), r.device_feature_select).to_le_bytes());
        put(0x08, &r.driver_feature_select.to_le_bytes());
        put(0x0c, &half(r.driver_features, r.driver_feature_select).to_le_bytes());
        put(0x10, &self.config_vector.to_le_bytes());
        put(0x12, &(self.queues.len() as u16).to_le_bytes());
        put(0x14, &[r.status, r.generation]);
        put(0x16, &r.queue_select.to_le_bytes());
        if let (Some(q), Some(vector)) = (self.queues.get(select), self.vectors.get(select)) {
            put(0x18, &q.size.to_le_bytes());
            put(0x1a, &vector.to_le_bytes());
            put(0x1c, &[u8::from(q.enabled)]);
            put(0x1e, &r.queue_select.to_le_bytes());
            q.areas.iter().zip([0x20, 0x28, 0x30]).for_each(|(a, at)| put(at, &a.to_le_bytes()));
        }
        b
    }

    fn common_write(&mut self, offset: u64, size: u8, value: u64) {
        let word = value as u16;
        let vector = if usize::from(word) <= self.queues.len() { word } else { NO_VECTOR };
        let features_open = self.r.status & FEATURES_OK == 0;
        match (offset, size) {
            (0x00, 4) => self.r.device_feature_select = value as u32,
            (0x08, 4) => self.r.driver_feature_select = value as u32,
            (0x0c, 4) if features_open => {
                let (f, part) = (&mut self.r.driver_features, value & 0xffff_ffff);
                match self.r.driver_feature_select {
                    0 => *f = *f & !0xffff_ffff | part,
                    1 => *f = *f & 0xffff_ffff | part << 32,
                    _ => {}
                }
            }
            (0x10, 2) => self.config_vector = vector,
            (0x14, 1) => self.write_status(value as u8),
            (0x16, 2) => self.r.queue_select = word,
            (0x1a, 2) => {
                if let Some(v) = self.vectors.get_mut(usize::from(self.r.queue_select)) {
                    *v = vector;
                }
            }
            _ => self.queue_write(offset, size, value),
        }
    }

    /// Registers of the selected queue, which are fixed once it is enabled.
    fn queue_write(&mut self, offset: u64, size: u8, value: u64) {
        let features = self.r.driver_features;
        let (packed, events) = (features & F_RING_PACKED != 0, features & F_EVENT_IDX != 0);
        let ready = self.r.status & FEATURES_OK != 0;
        let Some(q) = self.selected().filter(|q| !q.enabled) else { return };
        match (offset, size) {
            (0x18, 2) if (1..=q.max).contains(&(value as u16)) => q.size = value as u16,
            (0x1c, 2) if value == 1 && ready => q.enable(packed, events),
            (0x20..0x38, 4 | 8) if offset & 3 == 0 => {
                let area = &mut q.areas[(offset as usize - 0x20) / 8];
                *area = match (size, offset & 4) {
                    (8, 0) => value,
                    (4, 0) => *area & !0xffff_ffff | value & 0xffff_ffff,
                    (4, _) => *area & 0xffff_ffff | value << 32,
                    _ => *area,
                };
            }
            _ => {}
        }
    }

    /// After a write of the status: the driver may be ready, and have chains already.
    fn begin(&mut self, host: Host) {
        if self.r.status & DRIVER_OK != 0 && self.config.is_master() {
            self.queues.iter().for_each(|q| q.ask_for_notifications(host.memory));
            self.work(host);
        }
    }

    fn work(&mut self, host: Host) {
        let running = self.r.status & (DRIVER_OK | FEATURES_OK | NEEDS_RESET);
        if running == DRIVER_OK | FEATURES_OK && self.config.is_master() {
            self.device.work(&mut Bus { memory: host.memory, queues: &mut self.queues });
            for n in 0..self.queues.len() {
                if self.queues[n].interrupts(host.memory) {
                    self.interrupt(ISR_QUEUE, self.vectors[n]);
                }
            }
            if self.queues.iter().any(|q| q.broken) {
                self.r.status |= NEEDS_RESET;
                self.config_changed();
            }
        }
        if self.device.take_config_change() {
            self.config_changed();
        }
    }

    fn config_changed(&mut self) {
        self.r.generation = self.r.generation.wrapping_add(1);
        if self.r.status & DRIVER_OK != 0 {
            self.interrupt(ISR_CONFIG, self.config_vector);
        }
    }

    fn interrupt(&mut self, cause: u8, vector: u16) {
        if !self.config.msix_enabled() {
            self.r.isr |= cause;
        } else if vector != NO_VECTOR {
            self.config.raise_msix(usize::from(vector));
        }
        self.show();
    }

    fn show(&mut self) {
        let level = self.intx();
        self.config.show_intx(level);
    }

    /// Reads registers; ISR status is not cleared.
    fn peek(&self, offset: u64, size: u8) -> u64 {
        let slice = |bytes: &[u8], at: u64| {
            let byte = |n: u64| u64::from(bytes.get((at + n) as usize).copied().unwrap_or(0));
            (0..u64::from(size)).fold(0, |value, n| value | byte(n) << (8 * n))
        };
        match offset {
            0..ISR => slice(&self.common(), offset),
            ISR => self.r.isr.into(),
            DEVICE..NOTIFY => slice(&self.device.config(), offset - DEVICE),
            _ => 0,
        }
    }

    fn poke(&mut self, host: Host, offset: u64, size: u8, value: u64) {
        match offset {
            0..ISR => {
                self.common_write(offset, size, value);
                if offset == 0x14 {
                    self.begin(host);
                }
            }
            DEVICE..NOTIFY => {
                let bytes = &value.to_le_bytes()[..usize::from(size.min(8))];
                self.device.config_write((offset - DEVICE) as usize, bytes);
            }
            // The device looks at all of its queues: which one was named does not matter.
            NOTIFY.. if (offset - NOTIFY) / NOTIFY_STEP < self.queues.len() as u64 => {
                self.work(host);
            }
            _ => {}
        }
    }

    /// What the window in configuration space shows: BAR offset and size.
    fn windowed(&self) -> Option<(u64, u8)> {
        let dword = |at: usize| u64::from(self.config.dword(self.window + at));
        let (bar, offset, len) = (self.config.byte(self.window + 4), dword(8), dword(12));
        let fits = [1, 2, 4].contains(&len) && offset % len == 0 && offset + len <= REGISTERS;
        (usize::from(bar) == REGISTERS_BAR && fits).then_some((offset, len as u8))
    }
}

impl<D: Device> PciDevice for VirtioPci<D> {
    fn config(&self) -> &PciConfig {
        &self.config
    }

    fn config_mut(&mut self) -> &mut PciConfig {
        &mut self.config
    }

    fn configured(&mut self, host: Host, offset: u8, size: u8) {
        let written = usize::from(offset)..usize::from(offset) + usize::from(size);
        let hits = |at: Range<usize>| written.start < at.end && at.start < written.end;
        let data = self.window + 16;
        let window = self.windowed().filter(|_| hits(self.window..data + 4));
        if let Some((at, size)) = window {
            if hits(data..data + 4) {
                self.poke(host, at, size, self.config.dword(data).into());
            }
            let shown = self.peek(at, size).to_le_bytes();
            (0..4).for_each(|n| self.config.put(data + n, shown[n]));
        }
        self.work(host);
        self.show();
    }

    fn read(&mut self, _host: Host, bar: usize, offset: u64, size: u8) -> u64 {
        match bar {
            MSIX_BAR if offset < PENDING => self.config.msix_read(offset, size),
            MSIX_BAR => {
                let word = self.config.msix_pending((offset - PENDING) / 8);
                word >> (8 * (offset & 7)) & (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))))
            }
            _ => {
                let value = self.peek(offset, size);
                if offset == ISR {
                    self.r.isr = 0;
                    self.show();
                }
                value
            }
        }
    }

    fn write(&mut self, host: Host, bar: usize, offset: u64, size: u8, value: u64) {
        match bar {
            MSIX_BAR if offset < PENDING => self.config.msix_write(offset, size, value),
            MSIX_BAR => {}
            _ => self.poke(host, offset, size, value),
        }
        self.show();
    }

    fn intx(&self) -> bool {
        self.r.isr != 0
    }

    fn advance(&mut self, host: Host) {
        self.work(host);
    }

    fn reset(&mut self) {
        self.config.reset();
        self.reset_device();
    }
}
