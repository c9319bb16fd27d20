//! 8042 keyboard controller with a keyboard and a PS/2 mouse, and the fast port 0x92.
//!
//! Registers by offset from 0x60: 0 is data, 4 is status (read) and command (write).
//!
//! The output buffer holds one byte. Behind it wait three queues: controller replies, keyboard and
//! mouse; when the buffer is read the next byte moves up in that order, unless its port is
//! disabled. This takes no time, so the interrupt line of a full buffer can fall and rise within
//! one access: [`I8042::take_edges`] tells of every byte that arrived with its interrupt enabled.
//!
//! The keyboard speaks scancode set 2 from reset (1 and 3 on command), the controller translates
//! its bytes to set 1 while XLATE is set, as a PC does; both use one table. Host keys come as set 1
//! codes, since every host source can name them. A port's bytes are bounded: a key that finds the
//! keyboard full is refused whole, mouse motion adds up until there is room.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller", "Keyboard", "Mouse"; Intel UPI-41AH/42AH datasheet; 82371SB datasheet (port 0x92).

use std::collections::VecDeque;

const STATUS_OBF: u8 = 0x01;
const STATUS_SYS: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
/// The keyboard lock is open.
const STATUS_UNLOCKED: u8 = 0x10;
const STATUS_AUX_OBF: u8 = 0x20;

const MODE_KBD_INT: u8 = 0x01;
const MODE_AUX_INT: u8 = 0x02;
const MODE_SYS: u8 = 0x04;
const MODE_DISABLE_KBD: u8 = 0x10;
const MODE_DISABLE_AUX: u8 = 0x20;
const MODE_XLATE: u8 = 0x40;

/// Output port: low resets the processor.
const OUT_RESET: u8 = 0x01;
const OUT_A20: u8 = 0x02;
const OUT_KBD_OBF: u8 = 0x10;
const OUT_AUX_OBF: u8 = 0x20;
/// Pins of the output port that read as ones.
const OUT_ONES: u8 = 0xCC;

const ACK: u8 = 0xFA;
const RESEND: u8 = 0xFE;
const BAT_OK: u8 = 0xAA;
const BREAK: u8 = 0xF0;

/// Bytes that a device holds back for the host.
const QUEUE: usize = 16;
/// Motion is kept within these bounds while nobody reads it.
const MOTION: i32 = 0x7FFF;

/// Host code of the Pause key, which has no release code.
pub const PAUSE: u16 = 0xE11D;

/// Set 2 to set 1, as the controller's ROM has it; from 0x85 on bytes stay as they are.
#[rustfmt::skip]
const TO_SET_1: [u8; 0x85] = [
    0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
    0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
    0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
    0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
    0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
    0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
    0x80, 0x81, 0x82, 0x41, 0x54,
];

/// Set 1 codes whose set 3 code differs from the byte of set 2.
#[rustfmt::skip]
const SET_3: [(u16, u8); 44] = [
    (0x01, 0x08), (0x1D, 0x11), (0x2B, 0x5C), (0x38, 0x19), (0x3A, 0x14), (0x56, 0x13),
    (0x3B, 0x07), (0x3C, 0x0F), (0x3D, 0x17), (0x3E, 0x1F), (0x3F, 0x27), (0x40, 0x2F),
    (0x41, 0x37), (0x42, 0x3F), (0x43, 0x47), (0x44, 0x4F), (0x57, 0x56), (0x58, 0x5E),
    (0x37, 0x7E), (0x45, 0x76), (0x46, 0x5F), (0x4A, 0x84), (0x4E, 0x7C), (0x54, 0x57),
    (0xE01C, 0x79), (0xE01D, 0x58), (0xE035, 0x77), (0xE037, 0x57), (0xE038, 0x39), (0xE046, 0x62),
    (0xE047, 0x6E), (0xE048, 0x63), (0xE049, 0x6F), (0xE04B, 0x61), (0xE04D, 0x6A), (0xE04F, 0x65),
    (0xE050, 0x60), (0xE051, 0x6D), (0xE052, 0x67), (0xE053, 0x64), (0xE05B, 0x8B), (0xE05C, 0x8C),
    (0xE05D, 0x8D), (PAUSE, 0x62),
];

fn to_set_1(byte: u8) -> u8 {
    TO_SET_1.get(usize::from(byte)).copied().unwrap_or(byte)
}

/// The set 2 byte of a set 1 code; where two map to it, the higher is the key of a PC.
fn to_set_2(code: u8) -> Option<u8> {
    (0..TO_SET_1.len() as u8).rev().find(|&byte| code < 0x80 && to_set_1(byte) == code)
}

/// What a keyboard on scancode set `set` sends for a key; empty when the key does not exist.
fn key_bytes(set: u8, code: u16, pressed: bool) -> Vec<u8> {
    let prefix = (code >> 8 == 0xE0).then_some(0xE0);
    let release = (!pressed).then_some(BREAK);
    let set_2 = if code >> 8 == 0 || prefix.is_some() { to_set_2(code as u8) } else { None };
    let set_3 = SET_3.iter().find(|row| row.0 == code).map(|row| row.1).or(set_2);
    match (set, code, set_2) {
        (3, ..) => set_3.map_or(vec![], |byte| release.into_iter().chain([byte]).collect()),
        (_, PAUSE, _) if !pressed => vec![],
        (1, PAUSE, _) => vec![0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5],
        (_, PAUSE, _) => vec![0xE1, 0x14, 0x77, 0xE1, BREAK, 0x14, BREAK, 0x77],
        (_, _, None) => vec![],
        (1, ..) => prefix.into_iter().chain([code as u8 | u8::from(!pressed) << 7]).collect(),
        (_, _, Some(byte)) => prefix.into_iter().chain(release).chain([byte]).collect(),
    }
}

/// A PS/2 keyboard.
#[derive(Clone, Debug, PartialEq)]
struct Keyboard {
    /// Answers to commands; they go before keys.
    replies: VecDeque<u8>,
    keys: VecDeque<u8>,
    /// The command whose parameter comes next.
    parameter_of: Option<u8>,
    set: u8,
    scanning: bool,
    leds: u8,
    last_sent: u8,
}

impl Keyboard {
    fn new() -> Keyboard {
        Keyboard {
            replies: VecDeque::new(),
            keys: VecDeque::new(),
            parameter_of: None,
            set: 2,
            scanning: true,
            leds: 0,
            last_sent: BAT_OK,
        }
    }

    fn set_defaults(&mut self, scanning: bool) {
        self.keys.clear();
        self.set = 2;
        self.scanning = scanning;
    }

    fn pop(&mut self) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.keys.pop_front())?;
        self.last_sent = byte;
        Some(byte)
    }

    fn key(&mut self, code: u16, pressed: bool) -> bool {
        let bytes = key_bytes(self.set, code, pressed);
        let fits = self.scanning && self.keys.len() + bytes.len() <= QUEUE;
        if fits {
            self.keys.extend(bytes);
        }
        fits
    }

    fn command(&mut self, value: u8) {
        self.replies.clear();
        if let Some(command) = self.parameter_of.take() {
            return self.parameter(command, value);
        }
        match value {
            // Echo answers with itself instead of ACK.
            0xEE => return self.replies.push_back(0xEE),
            0xFE => return self.replies.push_back(self.last_sent),
            // LEDs, scancode set, typematic rate, key types of set 3.
            0xED | 0xF0 | 0xF3 | 0xFB..=0xFD => self.parameter_of = Some(value),
            0xF4 => {
                self.keys.clear();
                self.scanning = true;
            }
            0xF5 => self.set_defaults(false),
            0xF6 => self.set_defaults(true),
            0xF2 | 0xF7..=0xFA => {}
            0xFF => *self = Keyboard::new(),
            _ => return self.replies.push_back(RESEND),
        }
        self.replies.push_back(ACK);
        match value {
            0xF2 => self.replies.extend([0xAB, 0x83]),
            0xFF => self.replies.push_back(BAT_OK),
            _ => {}
        }
    }

    fn parameter(&mut self, command: u8, value: u8) {
        self.replies.push_back(ACK);
        match (command, value) {
            (0xED, _) => self.leds = value & 7,
            (0xF0, 0) => self.replies.push_back(self.set),
            (0xF0, 1..=3) => {
                self.keys.clear();
                self.set = value;
            }
            (0xF0, _) => self.replies = [RESEND].into(),
            _ => {}
        }
    }
}

/// A three-button PS/2 mouse.
#[derive(Clone, Debug, PartialEq)]
struct Mouse {
    replies: VecDeque<u8>,
    packets: VecDeque<u8>,
    parameter_of: Option<u8>,
    reporting: bool,
    remote: bool,
    wrap: bool,
    scaling_2_1: bool,
    resolution: u8,
    sample_rate: u8,
    dx: i32,
    dy: i32,
    buttons: u8,
    /// The buttons of the last packet.
    sent_buttons: u8,
    last_sent: u8,
}

impl Mouse {
    fn new() -> Mouse {
        Mouse {
            replies: VecDeque::new(),
            packets: VecDeque::new(),
            parameter_of: None,
            reporting: false,
            remote: false,
            wrap: false,
            scaling_2_1: false,
            resolution: 2,
            sample_rate: 100,
            dx: 0,
            dy: 0,
            buttons: 0,
            sent_buttons: 0,
            last_sent: BAT_OK,
        }
    }

    fn pop(&mut self) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.packets.pop_front())?;
        self.last_sent = byte;
        self.stream();
        Some(byte)
    }

    fn moved(&mut self, dx: i32, dy: i32, buttons: u8) {
        let add = |sum: i32, step: i32| sum.saturating_add(step).clamp(-MOTION, MOTION);
        if self.remote || self.reporting {
            (self.dx, self.dy) = (add(self.dx, dx), add(self.dy, dy));
        }
        self.buttons = buttons & 7;
        self.stream();
    }

    /// Queues packets while there is news and room.
    fn stream(&mut self) {
        while self.reporting
            && !self.remote
            && !self.wrap
            && (self.dx, self.dy, self.buttons) != (0, 0, self.sent_buttons)
            && self.packets.len() + 3 <= QUEUE
        {
            let packet = self.packet();
            self.packets.extend(packet);
        }
    }

    fn packet(&mut self) -> [u8; 3] {
        let (dx, dy) = (self.dx.clamp(-256, 255), self.dy.clamp(-256, 255));
        (self.dx, self.dy) = (self.dx - dx, self.dy - dy);
        self.sent_buttons = self.buttons;
        let signs = u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        [0x08 | self.buttons | signs, dx as u8, dy as u8]
    }

    /// The status byte names the buttons in the other order than a packet.
    fn status(&self) -> [u8; 3] {
        let [left, right, middle] = [0, 1, 2].map(|bit| self.buttons >> bit & 1);
        let modes = u8::from(self.scaling_2_1) << 4
            | u8::from(self.reporting) << 5
            | u8::from(self.remote) << 6;
        [modes | left << 2 | middle << 1 | right, self.resolution, self.sample_rate]
    }

    fn forget_motion(&mut self) {
        self.packets.clear();
        (self.dx, self.dy, self.sent_buttons) = (0, 0, self.buttons);
    }

    fn command(&mut self, value: u8) {
        self.replies.clear();
        if self.wrap && !matches!(value, 0xEC | 0xFF) {
            return self.replies.push_back(value);
        }
        self.replies.push_back(ACK);
        match (self.parameter_of.take(), value) {
            (Some(0xE8), _) => self.resolution = value,
            (Some(_), _) => self.sample_rate = value,
            (None, 0xE6 | 0xE7) => self.scaling_2_1 = value == 0xE7,
            (None, 0xE8 | 0xF3) => self.parameter_of = Some(value),
            (None, 0xE9) => self.replies.extend(self.status()),
            (None, 0xEB) => {
                let packet = self.packet();
                self.replies.extend(packet);
            }
            (None, 0xEA | 0xF0) => {
                self.forget_motion();
                self.remote = value == 0xF0;
            }
            (None, 0xEC | 0xEE) => self.wrap = value == 0xEE,
            (None, 0xF2) => self.replies.push_back(0),
            (None, 0xF4 | 0xF5) => {
                self.forget_motion();
                self.reporting = value == 0xF4;
            }
            (None, 0xF6 | 0xFF) => {
                *self = Mouse { buttons: self.buttons, sent_buttons: self.buttons, ..Mouse::new() };
                let reset: &[u8] = if value == 0xFF { &[ACK, BAT_OK, 0] } else { &[ACK] };
                self.replies.extend(reset);
            }
            (None, 0xFE) => self.replies = [self.last_sent].into(),
            _ => self.replies = [RESEND].into(),
        }
    }
}

/// Where a byte of the output buffer is from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Keyboard,
    Aux,
}

/// An 8042 with its two devices.
#[derive(Clone, Debug, PartialEq)]
pub struct I8042 {
    keyboard: Keyboard,
    mouse: Mouse,
    /// RAM of the microcontroller; byte 0 is the command byte.
    ram: [u8; 32],
    output_port: u8,
    replies: VecDeque<(u8, Source)>,
    full: Option<Source>,
    /// The byte in the output buffer, also after it was read.
    data: u8,
    /// The command whose data byte comes next.
    parameter_of: Option<u8>,
    last_was_command: bool,
    /// A break prefix of set 2 has been swallowed by the translation.
    break_seen: bool,
    edges: u32,
    reset: bool,
}

impl Default for I8042 {
    fn default() -> I8042 {
        I8042::new()
    }
}

impl I8042 {
    /// A controller after power-up: both interrupts on, A20 on, no translation.
    #[must_use]
    pub fn new() -> I8042 {
        let mut ram = [0; 32];
        ram[0] = MODE_KBD_INT | MODE_AUX_INT;
        I8042 {
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            ram,
            output_port: OUT_RESET | OUT_A20,
            replies: VecDeque::new(),
            full: None,
            data: 0,
            parameter_of: None,
            last_was_command: true,
            break_seen: false,
            edges: 0,
            reset: false,
        }
    }

    /// System reset, of the devices too.
    pub fn reset(&mut self) {
        *self = I8042::new();
    }

    /// Reads data (`reg` 0) or status (`reg` 4).
    pub fn read(&mut self, reg: u16) -> u8 {
        if reg & 4 != 0 {
            return self.status();
        }
        self.full = None;
        let data = self.data;
        self.fill();
        data
    }

    /// Writes data (`reg` 0) or a command (`reg` 4).
    pub fn write(&mut self, reg: u16, value: u8) {
        self.last_was_command = reg & 4 != 0;
        match self.last_was_command {
            true => self.command(value),
            false => self.write_data(value),
        }
        self.fill();
    }

    /// Level of IRQ 1: the output buffer holds a byte from the keyboard or the controller.
    #[must_use]
    pub fn irq1(&self) -> bool {
        self.full == Some(Source::Keyboard) && self.ram[0] & MODE_KBD_INT != 0
    }

    /// Level of IRQ 12: the output buffer holds a byte from the mouse.
    #[must_use]
    pub fn irq12(&self) -> bool {
        self.full == Some(Source::Aux) && self.ram[0] & MODE_AUX_INT != 0
    }

    /// The interrupts that have risen since the last call, bit n for IRQ n.
    pub fn take_edges(&mut self) -> u32 {
        std::mem::take(&mut self.edges)
    }

    /// The A20 gate of the output port (true: address line 20 is not forced low).
    #[must_use]
    pub fn a20(&self) -> bool {
        self.output_port & OUT_A20 != 0
    }

    /// Whether the guest has pulled the reset line since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// The keyboard lights: bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.keyboard.leds
    }

    /// A key of the host goes down (or repeats) or up. `code` is its set 1 make code: 0x01 to 0x7F,
    /// with 0xE0 in the high byte for the keys that have that prefix, or [`PAUSE`]. False when the
    /// keyboard is full or not scanning; the key is then lost unless the host tries again.
    pub fn push_scancode(&mut self, code: u16, pressed: bool) -> bool {
        let taken = self.keyboard.key(code, pressed);
        self.fill();
        taken
    }

    /// The mouse moves (counts to the right and up) or its buttons change: bit 0 left, 1 right,
    /// 2 middle.
    pub fn push_mouse(&mut self, dx: i32, dy: i32, buttons: u8) {
        self.mouse.moved(dx, dy, buttons);
        self.fill();
    }

    fn status(&self) -> u8 {
        let full = match self.full {
            None => 0,
            Some(Source::Keyboard) => STATUS_OBF,
            Some(Source::Aux) => STATUS_OBF | STATUS_AUX_OBF,
        };
        let command = if self.last_was_command { STATUS_COMMAND } else { 0 };
        let system = if self.ram[0] & MODE_SYS != 0 { STATUS_SYS } else { 0 };
        full | command | system | STATUS_UNLOCKED
    }

    fn reply(&mut self, byte: u8) {
        // Nothing a guest needs is this far behind; the bound is for one that never reads.
        if self.replies.len() < QUEUE {
            self.replies.push_back((byte, Source::Keyboard));
        }
    }

    fn command(&mut self, value: u8) {
        self.parameter_of = None;
        match value {
            0x20..=0x3F => self.reply(self.ram[usize::from(value & 31)]),
            0x60..=0x7F | 0xD1..=0xD4 => self.parameter_of = Some(value),
            0xA4 => self.reply(0xF1), // no password installed
            0xA7 => self.ram[0] |= MODE_DISABLE_AUX,
            0xA8 => self.ram[0] &= !MODE_DISABLE_AUX,
            0xA9 | 0xAB => self.reply(0x00), // interface test: no error
            0xAA => {
                self.ram[0] |= MODE_SYS;
                self.reply(0x55);
            }
            0xAD => self.ram[0] |= MODE_DISABLE_KBD,
            0xAE => self.ram[0] &= !MODE_DISABLE_KBD,
            0xC0 => self.reply(0x80), // input port: keyboard not locked
            0xD0 => {
                let full = match self.full {
                    None => 0,
                    Some(Source::Keyboard) => OUT_KBD_OBF,
                    Some(Source::Aux) => OUT_AUX_OBF,
                };
                self.reply(self.output_port | full | OUT_ONES);
            }
            0xDD => self.output_port &= !OUT_A20,
            0xDF => self.output_port |= OUT_A20,
            // Pulses the output port pins whose bits are 0.
            0xF0..=0xFF => self.reset |= value & OUT_RESET == 0,
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.parameter_of.take() {
            Some(command @ 0x60..=0x7F) => self.ram[usize::from(command & 31)] = value,
            Some(0xD1) => {
                self.reset |= value & OUT_RESET == 0;
                self.output_port = value & OUT_A20 | OUT_RESET;
            }
            Some(0xD2) => self.reply(value),
            Some(0xD3) => {
                self.reply(value);
                self.replies.back_mut().into_iter().for_each(|reply| reply.1 = Source::Aux);
            }
            Some(_) => {
                self.ram[0] &= !MODE_DISABLE_AUX;
                self.mouse.command(value);
            }
            None => {
                // Sending to the keyboard opens its port again.
                self.ram[0] &= !MODE_DISABLE_KBD;
                self.keyboard.command(value);
            }
        }
    }

    /// Moves the next waiting byte into the output buffer when that is empty.
    fn fill(&mut self) {
        if self.full.is_some() {
            return;
        }
        let Some((byte, source)) = self.next_byte() else { return };
        self.data = byte;
        self.full = Some(source);
        self.edges |= u32::from(self.irq1()) << 1 | u32::from(self.irq12()) << 12;
    }

    fn next_byte(&mut self) -> Option<(u8, Source)> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        if self.ram[0] & MODE_DISABLE_KBD == 0 {
            while let Some(byte) = self.keyboard.pop() {
                if self.ram[0] & MODE_XLATE == 0 {
                    return Some((byte, Source::Keyboard));
                }
                if byte == BREAK {
                    self.break_seen = true;
                    continue;
                }
                let release = if std::mem::take(&mut self.break_seen) { 0x80 } else { 0 };
                return Some((to_set_1(byte) | release, Source::Keyboard));
            }
        }
        if self.ram[0] & MODE_DISABLE_AUX == 0 {
            return self.mouse.pop().map(|byte| (byte, Source::Aux));
        }
        None
    }
}

/// Port 0x92: fast A20 gate and fast reset. The board lets address line 20 through when this port
/// or the keyboard controller does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port92 {
    value: u8,
    reset: bool,
}

impl Port92 {
    /// The port with both bits off.
    #[must_use]
    pub fn new() -> Port92 {
        Port92::default()
    }

    /// System reset.
    pub fn reset(&mut self) {
        *self = Port92::new();
    }

    /// Reads the port.
    #[must_use]
    pub fn read(&self) -> u8 {
        self.value
    }

    /// Writes the port: bit 0 going from 0 to 1 resets, bit 1 is A20.
    pub fn write(&mut self, value: u8) {
        self.reset |= value & !self.value & 1 != 0;
        self.value = value & 3;
    }

    /// The A20 gate (true: address line 20 is not forced low).
    #[must_use]
    pub fn a20(&self) -> bool {
        self.value & 2 != 0
    }

    /// Whether a reset was asked for since the last call.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn controller(command_byte: u8) -> I8042 {
        let mut c = I8042::new();
        c.write(4, 0x60);
        c.write(0, command_byte);
        c
    }

    /// All bytes the guest can read now, with the status bit that tells the port.
    fn drain(c: &mut I8042) -> Vec<u8> {
        std::iter::from_fn(|| (c.read(4) & STATUS_OBF != 0).then(|| c.read(0))).collect()
    }

    fn keyboard(c: &mut I8042, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        for &byte in bytes {
            c.write(0, byte);
            answer.extend(drain(c));
        }
        answer
    }

    fn mouse(c: &mut I8042, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        for &byte in bytes {
            c.write(4, 0xD4);
            c.write(0, byte);
            answer.extend(drain(c));
        }
        answer
    }

    fn command(c: &mut I8042, command: u8) -> Vec<u8> {
        c.write(4, command);
        drain(c)
    }

    fn tap(c: &mut I8042, code: u16) -> Vec<u8> {
        assert!(c.push_scancode(code, true) && c.push_scancode(code, false));
        drain(c)
    }

    #[test]
    fn self_test_sets_the_system_flag() {
        let mut c = I8042::new();
        assert_eq!(c.read(4), STATUS_COMMAND | STATUS_UNLOCKED);
        assert_eq!(command(&mut c, 0xAA), [0x55]);
        assert_eq!(c.read(4) & STATUS_SYS, STATUS_SYS);
        assert_eq!((command(&mut c, 0xAB), command(&mut c, 0xA9)), (vec![0], vec![0]));
    }

    #[test]
    fn command_byte_and_ram_read_back() {
        let mut c = controller(0x47);
        c.write(4, 0x7F);
        c.write(0, 0xA5);
        assert_eq!((command(&mut c, 0x20), command(&mut c, 0x3F)), (vec![0x47], vec![0xA5]));
        c.write(0, 0xEE);
        assert_eq!(c.read(4) & STATUS_COMMAND, 0);
    }

    #[test]
    fn linux_aux_loopback_test() {
        let mut c = controller(MODE_AUX_INT);
        c.write(4, 0xD3);
        c.write(0, 0x5A);
        assert_eq!(c.read(4) & (STATUS_OBF | STATUS_AUX_OBF), STATUS_OBF | STATUS_AUX_OBF);
        assert_eq!((c.irq1(), c.irq12(), c.take_edges()), (false, true, 1 << 12));
        assert_eq!(drain(&mut c), [0x5A]);
        c.write(4, 0xA7);
        assert_eq!(command(&mut c, 0x20), [MODE_AUX_INT | MODE_DISABLE_AUX]);
        c.write(4, 0xA8);
        assert_eq!(command(&mut c, 0x20), [MODE_AUX_INT]);
    }

    #[test]
    fn keyboard_buffer_write_is_not_translated() {
        let mut c = controller(MODE_XLATE);
        c.write(4, 0xD2);
        assert_eq!(keyboard(&mut c, &[0x1C]), [0x1C]);
    }

    #[test]
    fn irq1_is_one_edge_per_byte() {
        let mut c = controller(MODE_KBD_INT);
        c.push_scancode(0x1E, true);
        c.push_scancode(0x1E, false);
        for (byte, next) in [(0x1C, true), (0xF0, true), (0x1C, false)] {
            assert_eq!((c.irq1(), c.irq12(), c.take_edges()), (true, false, 2));
            assert_eq!((c.read(0), c.irq1()), (byte, next));
        }
        assert_eq!((c.take_edges(), c.read(0)), (0, 0x1C), "the last byte stays readable");
        let mut c = controller(0);
        c.push_scancode(0x1E, true);
        assert_eq!((c.irq1(), c.take_edges()), (false, 0));
    }

    #[test]
    fn a_disabled_port_holds_its_bytes() {
        let mut c = controller(MODE_DISABLE_KBD | MODE_DISABLE_AUX);
        c.push_scancode(0x1E, true);
        assert_eq!(drain(&mut c), []);
        assert_eq!(command(&mut c, 0xAE), [0x1C]);
        c.write(4, 0xAD);
        assert_eq!(keyboard(&mut c, &[0xEE]), [0xEE], "writing to the keyboard enables it");
        assert_eq!(command(&mut c, 0x20), [MODE_DISABLE_AUX]);
    }

    #[test]
    fn keys_in_every_scancode_set() {
        // (code, set 1, set 2, set 3)
        type Row = (u16, &'static [u8], &'static [u8], &'static [u8]);
        let rows: [Row; 6] = [
            (0x1E, &[0x1E, 0x9E], &[0x1C, 0xF0, 0x1C], &[0x1C, 0xF0, 0x1C]),
            (0x41, &[0x41, 0xC1], &[0x83, 0xF0, 0x83], &[0x37, 0xF0, 0x37]),
            (0x1D, &[0x1D, 0x9D], &[0x14, 0xF0, 0x14], &[0x11, 0xF0, 0x11]),
            (
                0xE048,
                &[0xE0, 0x48, 0xE0, 0xC8],
                &[0xE0, 0x75, 0xE0, 0xF0, 0x75],
                &[0x63, 0xF0, 0x63],
            ),
            (
                0xE05D,
                &[0xE0, 0x5D, 0xE0, 0xDD],
                &[0xE0, 0x2F, 0xE0, 0xF0, 0x2F],
                &[0x8D, 0xF0, 0x8D],
            ),
            (
                PAUSE,
                &[0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5],
                &[0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77],
                &[0x62, 0xF0, 0x62],
            ),
        ];
        for (code, set_1, set_2, set_3) in rows {
            for (set, bytes) in [(1, set_1), (2, set_2), (3, set_3)] {
                let mut c = controller(0);
                assert_eq!(keyboard(&mut c, &[0xF0, set]), [ACK, ACK]);
                assert_eq!(tap(&mut c, code), bytes, "{code:#x} in set {set}");
            }
            assert_eq!(tap(&mut controller(MODE_XLATE), code), set_1, "{code:#x} translated");
        }
    }

    #[test]
    fn every_set_1_code_survives_set_2_and_translation() {
        for code in 1..0x7F {
            // Codes without a set 2 byte exist on no keyboard.
            if to_set_2(code).is_some() {
                assert_eq!(tap(&mut controller(MODE_XLATE), code.into()), [code, code | 0x80]);
            }
        }
        assert_eq!((1..=0x58).filter(|&code| to_set_2(code).is_none()).count(), 0);
    }

    #[test]
    fn unknown_keys_send_nothing() {
        let mut c = controller(0);
        for code in [0, 0x80, 0xFFFF, 0xE000, 0xE11E, 0x0101] {
            assert_eq!(tap(&mut c, code), [], "{code:#x}");
        }
    }

    #[test]
    fn keyboard_commands() {
        for (bytes, answer) in [
            (&[0xFF][..], &[ACK, BAT_OK][..]),
            (&[0xFE], &[BAT_OK]),
            (&[0xF2], &[ACK, 0xAB, 0x83]),
            (&[0xEE], &[0xEE]),
            (&[0xF0, 0x00], &[ACK, ACK, 2]),
            (&[0xF0, 0x04], &[ACK, RESEND]),
            (&[0xF3, 0x20], &[ACK, ACK]),
            (&[0xF6], &[ACK]),
            (&[0xF8], &[ACK]),
            (&[0x12], &[RESEND]),
        ] {
            let mut c = controller(0);
            let got = keyboard(&mut c, bytes);
            assert_eq!(got, answer, "{bytes:x?}");
        }
        assert_eq!(keyboard(&mut controller(MODE_XLATE), &[0xF2]), [ACK, 0xAB, 0x41]);
    }

    #[test]
    fn leds_and_scanning() {
        let mut c = controller(0);
        keyboard(&mut c, &[0xED]);
        assert_eq!((keyboard(&mut c, &[0x04]), c.leds()), (vec![ACK], 4));
        keyboard(&mut c, &[0xF5]);
        assert!(!c.push_scancode(0x1E, true));
        keyboard(&mut c, &[0xF4]);
        assert!(c.push_scancode(0x1E, true));
        assert_eq!(drain(&mut c), [0x1C]);
    }

    #[test]
    fn a_full_keyboard_refuses_whole_keys() {
        let mut c = controller(0);
        let taken = (0..20).filter(|_| c.push_scancode(0xE048, false)).count();
        assert_eq!(drain(&mut c), [0xE0, 0xF0, 0x75].repeat(taken));
    }

    #[test]
    fn a_reply_goes_before_waiting_keys() {
        let mut c = controller(MODE_DISABLE_KBD);
        c.push_scancode(0x1E, true);
        assert_eq!(keyboard(&mut c, &[0xEE]), [0xEE, 0x1C]);
    }

    #[test]
    fn output_port_gates_a20_and_reset() {
        let mut c = I8042::new();
        assert!(c.a20());
        assert_eq!(command(&mut c, 0xD0), [0xCF]);
        c.write(4, 0xD1);
        c.write(0, 0xDD);
        assert_eq!((c.a20(), c.take_reset()), (false, false));
        c.write(4, 0xDF);
        assert!(c.a20());
        c.write(4, 0xDD);
        assert!(!c.a20());
        c.write(4, 0xD1);
        c.write(0, 0x02);
        assert!(c.a20() && c.take_reset() && !c.take_reset());
        c.write(4, 0xFF);
        assert!(!c.take_reset());
        c.write(4, 0xFE);
        assert!(c.take_reset());
    }

    #[test]
    fn mouse_detection_and_settings() {
        let mut c = controller(MODE_AUX_INT);
        assert_eq!(mouse(&mut c, &[0xFF]), [ACK, BAT_OK, 0]);
        assert_eq!(mouse(&mut c, &[0xF2]), [ACK, 0]);
        assert_eq!(mouse(&mut c, &[0xE8, 3, 0xF3, 60, 0xE7, 0xF4]), [ACK; 6]);
        c.push_mouse(0, 0, 0b001);
        assert_eq!(drain(&mut c), [0x09, 0, 0]);
        assert_eq!(mouse(&mut c, &[0xE9]), [ACK, 0x34, 3, 60]);
        assert_eq!(mouse(&mut c, &[0xF6, 0xE9]), [ACK, ACK, 0x04, 2, 100]);
        assert_eq!(mouse(&mut c, &[0x01]), [RESEND]);
        assert_eq!(mouse(&mut c, &[0xEE, 0x42, 0xEC]), [ACK, 0x42, ACK]);
    }

    #[test]
    fn mouse_packets() {
        let mut c = controller(MODE_AUX_INT);
        c.push_mouse(5, 5, 0);
        assert_eq!(drain(&mut c), [], "not reporting");
        mouse(&mut c, &[0xF4]);
        c.push_mouse(3, -2, 0b110);
        assert_eq!(c.take_edges() >> 12, 1);
        assert_eq!(drain(&mut c), [0x2E, 3, 0xFE]);
        c.push_mouse(-300, 256, 0);
        assert_eq!(drain(&mut c), [0x18, 0x00, 0xFF, 0x18, 0xD4, 0x01]);
        c.push_mouse(0, 0, 0);
        assert_eq!(drain(&mut c), [], "no news");
    }

    #[test]
    fn motion_adds_up_while_the_queue_is_full() {
        let mut c = controller(0);
        mouse(&mut c, &[0xF4]);
        (0..1000).for_each(|_| c.push_mouse(7, 0, 0));
        let bytes = drain(&mut c);
        assert_eq!(bytes.chunks(3).map(|packet| i32::from(packet[1])).sum::<i32>(), 7000);
    }

    #[test]
    fn remote_mode_reports_on_request() {
        let mut c = controller(0);
        mouse(&mut c, &[0xF0]);
        c.push_mouse(4, 4, 0);
        assert_eq!(drain(&mut c), []);
        assert_eq!(mouse(&mut c, &[0xEB, 0xEB]), [ACK, 8, 4, 4, ACK, 8, 0, 0]);
    }

    #[test]
    fn port_92_resets_on_the_rise_of_bit_0() {
        let mut port = Port92::new();
        port.write(0xFE);
        assert_eq!((port.read(), port.a20(), port.take_reset()), (2, true, false));
        port.write(0x01);
        assert!(!port.a20() && port.take_reset());
        port.write(0x01);
        assert!(!port.take_reset());
    }

    #[test]
    fn random_accesses() {
        let (mut c, mut rng) = (I8042::new(), Rng(1));
        for _ in 0..200_000 {
            let (reg, value) = (rng.below(8) as u16, rng.next() as u8);
            match rng.below(6) {
                0 => c.write(reg, value),
                1 => c.write(0, 0xE0 | value),
                2 | 3 => drop(c.read(reg)),
                4 => drop(c.push_scancode(rng.next() as u16, value & 1 != 0)),
                _ => c.push_mouse(rng.next() as i32, rng.next() as i32 >> (value & 31), value),
            }
            assert!(c.replies.len() <= QUEUE && c.keyboard.keys.len() <= QUEUE);
            assert!(c.mouse.packets.len() <= QUEUE && c.keyboard.replies.len() <= 3);
        }
    }
}
