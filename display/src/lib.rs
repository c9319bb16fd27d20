//! What shows a guest's screen and takes keys for it: PNG pictures, a VNC server, a text terminal.
//!
//! Nothing here knows a machine. Pictures come as [`Frame`]s, text as [`terminal::Grid`]s, keys
//! leave as [`keys::Key`]s; who owns the machine converts. The VNC server has threads and sockets
//! of its own, all else is bytes in and bytes out.

pub mod cp437;
pub mod keys;
pub mod png;
pub mod terminal;
pub mod terminal_keys;
pub mod vnc;

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// `width * height` pixels, line by line from the top: 00RRGGBBH.
    pub pixels: Vec<u32>,
}

impl Frame {
    /// The pixel at column `x` of line `y`; black beyond the edges.
    #[must_use]
    pub fn pixel(&self, x: usize, y: usize) -> u32 {
        let inside = x < self.width && y < self.height;
        let pixel = self.pixels.get(y.wrapping_mul(self.width).wrapping_add(x));
        pixel.copied().filter(|_| inside).unwrap_or(0)
    }
}
