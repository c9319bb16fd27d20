//! The VGA as drivers program it: modes by their register tables, memory by the window, and the
//! pixels that come out.

use super::*;
use crate::testing::Rng;
use emu_core::mem::Memory;

struct Mode {
    misc: u8,
    sequencer: [u8; 5],
    crtc: [u8; 25],
    graphics: [u8; 9],
    /// The attribute controller's mode control and plane enable; then panning.
    attribute: [u8; 3],
}

/// 80 × 25 characters of 9 × 16 dots.
#[rustfmt::skip]
const TEXT: Mode = Mode {
    misc: 0x67,
    sequencer: [3, 0, 3, 0, 2],
    crtc: [0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0,
           0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff],
    graphics: [0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff],
    attribute: [0x0c, 0x0f, 8],
};

/// 640 × 480, 16 colours.
#[rustfmt::skip]
const PLANAR: Mode = Mode {
    misc: 0xe3,
    sequencer: [3, 1, 15, 0, 6],
    crtc: [0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0,
           0xea, 0x8c, 0xdf, 0x28, 0, 0xe7, 0x04, 0xe3, 0xff],
    graphics: [0, 0, 0, 0, 0, 0, 5, 15, 0xff],
    attribute: [1, 15, 0],
};

/// 320 × 200, 256 colours.
#[rustfmt::skip]
const CHAINED: Mode = Mode {
    misc: 0x63,
    sequencer: [3, 1, 15, 0, 14],
    crtc: [0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0,
           0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff],
    graphics: [0, 0, 0, 0, 0, 0x40, 5, 15, 0xff],
    attribute: [0x41, 15, 0],
};

/// 320 × 200, four colours of the CGA.
#[rustfmt::skip]
const CGA: Mode = Mode {
    misc: 0x63,
    sequencer: [3, 9, 3, 0, 2],
    crtc: [0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0,
           0x9c, 0x8e, 0x8f, 0x14, 0, 0x96, 0xb9, 0xa2, 0xff],
    graphics: [0, 0, 0, 0, 0, 0x30, 15, 15, 0xff],
    attribute: [1, 3, 0],
};

const VRAM: u64 = 16 << 20;
const B8000: u32 = 0x1_8000;

fn vga() -> Vga {
    Vga::new(DeviceRam::alone(VRAM).unwrap(), vec![0x55, 0xaa])
}

fn indexed(v: &mut Vga, port: u16, index: u8, value: u8) {
    v.port_write(0, port, index);
    v.port_write(0, port + 1, value);
}

fn attribute(v: &mut Vga, index: u8, value: u8) {
    v.port_read(0, 0x3da);
    v.port_write(0, 0x3c0, index);
    v.port_write(0, 0x3c0, value);
    v.port_write(0, 0x3c0, 0x20);
}

/// Sets a mode; colour n of the palette is colour n of the DAC, whose blue is n.
fn set(v: &mut Vga, mode: &Mode) {
    v.port_write(0, 0x3c2, mode.misc);
    (0..).zip(mode.sequencer).for_each(|(n, value)| indexed(v, 0x3c4, n, value));
    indexed(v, 0x3d4, 0x11, 0);
    (0..).zip(mode.crtc).for_each(|(n, value)| indexed(v, 0x3d4, n, value));
    (0..).zip(mode.graphics).for_each(|(n, value)| indexed(v, 0x3ce, n, value));
    (0..16).for_each(|n| attribute(v, n, n));
    (0x10..).step_by(2).zip(&mode.attribute[..2]).for_each(|(n, &value)| attribute(v, n, value));
    attribute(v, 0x13, mode.attribute[2]);
    v.port_write(0, 0x3c6, 0xff);
    v.port_write(0, 0x3c8, 0);
    for n in 0..=255 {
        [n >> 6, 0, n & 63].into_iter().for_each(|c| v.port_write(0, 0x3c9, c));
    }
}

/// The DAC's colour `n` of [`set`].
fn colour(n: u8) -> u32 {
    let wide = |c: u8| u32::from(c << 2 | c >> 4);
    wide(n >> 6) << 16 | wide(n & 63)
}

fn with(mode: &Mode) -> Vga {
    let mut v = vga();
    set(&mut v, mode);
    v
}

fn dispi(v: &mut Vga, index: u16, value: u16) {
    v.dispi_write(0x1ce, index);
    v.dispi_write(0x1cf, value);
}

fn linear(v: &mut Vga, width: u16, height: u16, bpp: u16, enable: u16) {
    dispi(v, 4, 0);
    (1..).zip([width, height, bpp]).for_each(|(n, value)| dispi(v, n, value));
    dispi(v, 4, enable);
    v.port_write(0, 0x3c0, 0x20);
}

fn pixel(frame: &Frame, x: usize, y: usize) -> u32 {
    frame.pixels[y * frame.width + x]
}

/// Loads the glyph of a character as drivers do, by plane 2, planar.
fn glyph(v: &mut Vga, at: u32, lines: &[u8]) {
    for (port, index, value) in [(0x3c4, 2, 4), (0x3c4, 4, 7), (0x3ce, 5, 0), (0x3ce, 6, 4)] {
        indexed(v, port, index, value);
    }
    (at..).zip(lines).for_each(|(at, &line)| v.memory_write(at, line));
    for (port, index, value) in [(0x3c4, 2, 3), (0x3c4, 4, 2), (0x3ce, 5, 0x10), (0x3ce, 6, 14)] {
        indexed(v, port, index, value);
    }
}

fn print(v: &mut Vga, cell: u32, text: &[u8], attribute: u8) {
    for (n, &c) in (cell..).zip(text) {
        v.memory_write(B8000 + 2 * n, c);
        v.memory_write(B8000 + 2 * n + 1, attribute);
    }
}

#[test]
fn text_is_in_cells_and_in_pixels() {
    let mut v = with(&TEXT);
    glyph(&mut v, u32::from(b'A') * 32, &[0x81; 16]);
    glyph(&mut v, 0xdb * 32, &[0xff; 16]);
    print(&mut v, 0, b"A\xdb", 0x1e);
    print(&mut v, 81, b"A", 0x04);
    assert_eq!((v.memory_read(B8000), v.memory_read(B8000 + 1)), (b'A', 0x1e));
    let screen = v.text().unwrap();
    assert_eq!((screen.columns, screen.rows, screen.cursor), (80, 25, Some((0, 0))));
    assert_eq!(screen.cells[..2], [(b'A', 0x1e), (0xdb, 0x1e)]);
    assert_eq!(screen.cells[81], (b'A', 4));
    let frame = v.render(0);
    assert_eq!((frame.width, frame.height), (720, 400));
    let row: Vec<_> = (0..19).map(|x| pixel(&frame, x, 0)).collect();
    let (f, b, none) = (colour(14), colour(1), colour(0));
    // The ninth dot is the eighth's only for line characters.
    assert_eq!(row[..9], [f, b, b, b, b, b, b, f, b]);
    assert_eq!((&row[9..18], row[18]), (&[f; 9][..], none));
    assert_eq!((pixel(&frame, 9, 16), pixel(&frame, 10, 16)), (colour(4), none));
    // The cursor's lines 13 and 14, all nine dots wide.
    assert_eq!((pixel(&frame, 3, 12), pixel(&frame, 3, 13), pixel(&frame, 8, 14)), (b, f, f));
    assert_eq!(pixel(&frame, 3, 15), b);
}

#[test]
fn the_cursor_and_characters_blink() {
    let mut v = with(&TEXT);
    glyph(&mut v, 0, &[0; 16]);
    glyph(&mut v, 32, &[0xff; 16]);
    print(&mut v, 1, &[1], 0x87);
    print(&mut v, 2, &[0], 0x07);
    indexed(&mut v, 0x3d4, 15, 2);
    let frame_ns = 900 * 449 * 1_000_000_000 / 28_322_000;
    let at = |v: &Vga, frame: u64| {
        let f = v.render(frame * frame_ns + 1000);
        (pixel(&f, 9, 0) == colour(7), pixel(&f, 18, 13) == colour(7))
    };
    assert_eq!([0, 8, 16, 24].map(|n| at(&v, n)).map(|x| x.0), [true, true, false, false]);
    assert_eq!([0, 8, 16, 24].map(|n| at(&v, n)).map(|x| x.1), [true, false, true, false]);
    assert!(v.text().unwrap().blink);
    // Without blinking the bit is the background's intensity.
    attribute(&mut v, 0x10, 4);
    indexed(&mut v, 0x3d4, 10, 0x20);
    assert_eq!(pixel(&v.render(16 * frame_ns), 18, 0), colour(0));
    print(&mut v, 1, &[0], 0x87);
    assert_eq!(pixel(&v.render(16 * frame_ns), 9, 0), colour(8));
    assert_eq!((v.text().unwrap().cursor, v.text().unwrap().blink), (None, false));
}

#[test]
fn monochrome_text_is_underlined_and_forty_columns_are_wide() {
    let mut v = with(&TEXT);
    indexed(&mut v, 0x3d4, 0x14, 0x0d);
    indexed(&mut v, 0x3d4, 10, 0x20);
    print(&mut v, 0, b" ", 0x01);
    print(&mut v, 1, b" ", 0x02);
    let frame = v.render(0);
    let row = |y| (0..10).map(|x| pixel(&frame, x, y)).collect::<Vec<_>>();
    assert_eq!((row(12), row(13)[8..].to_vec()), (vec![0; 10], vec![colour(1), 0]));
    // Half the dot clock: every dot twice.
    indexed(&mut v, 0x3c4, 1, 8);
    indexed(&mut v, 0x3d4, 0x11, 0);
    indexed(&mut v, 0x3d4, 1, 39);
    let frame = v.render(0);
    assert_eq!((frame.width, v.text().unwrap().columns), (720, 40));
    let ends = [0, 17, 18].map(|x| pixel(&frame, x, 13));
    assert_eq!(ends, [colour(1), colour(1), 0]);
}

#[test]
fn attribute_bit_3_chooses_the_glyphs() {
    let mut v = with(&TEXT);
    glyph(&mut v, 32, &[0x80; 16]);
    glyph(&mut v, 0x4000 + 32, &[0x40; 16]);
    glyph(&mut v, 0x2000 + 32, &[0x20; 16]);
    print(&mut v, 10, &[1], 0x0f);
    print(&mut v, 11, &[1], 0x07);
    // Map A (bits 2, 3, 5) and map B (bits 0, 1, 4); the dot that each shows.
    for (select, a, b) in [(0, 0, 0), (0x04, 1, 0), (0x10, 0, 2), (0x21, 2, 1)] {
        indexed(&mut v, 0x3c4, 3, select);
        let frame = v.render(0);
        assert_eq!(pixel(&frame, 90 + a, 0), colour(15), "{select:#x}");
        assert_eq!(pixel(&frame, 99 + b, 0), colour(7), "{select:#x}");
    }
}

#[test]
fn text_scrolls_by_its_start_address_and_splits() {
    let mut v = with(&TEXT);
    for row in 0..40 {
        print(&mut v, row * 80, &[row as u8 + 1], 7);
    }
    indexed(&mut v, 0x3d4, 13, 80);
    let firsts =
        |v: &Vga| -> Vec<u8> { v.text().unwrap().cells.chunks(80).map(|row| row[0].0).collect() };
    assert_eq!(firsts(&v), (2..27).collect::<Vec<_>>());
    // Below scan line 319 the screen begins anew at address 0.
    indexed(&mut v, 0x3d4, 0x18, 0x3f);
    indexed(&mut v, 0x3d4, 9, 0x0f);
    assert_eq!(firsts(&v), (2..22).chain(1..6).collect::<Vec<_>>());
}

#[test]
fn planar_write_modes() {
    let mut v = with(&PLANAR);
    let planes = |v: &mut Vga, at: u32| {
        [0, 1, 2, 3].map(|n| {
            indexed(v, 0x3ce, 4, n);
            v.memory_read(at)
        })
    };
    // Mode 0: the map mask, then set/reset.
    indexed(&mut v, 0x3c4, 2, 5);
    v.memory_write(0, 0xa5);
    assert_eq!(planes(&mut v, 0), [0xa5, 0, 0xa5, 0]);
    indexed(&mut v, 0x3c4, 2, 15);
    indexed(&mut v, 0x3ce, 0, 6);
    indexed(&mut v, 0x3ce, 1, 7);
    v.memory_write(1, 0x3c);
    assert_eq!(planes(&mut v, 1), [0, 0xff, 0xff, 0x3c]);
    // Rotate and XOR with the latches, which the last read filled.
    indexed(&mut v, 0x3ce, 1, 0);
    indexed(&mut v, 0x3ce, 3, 0x18 | 4);
    v.memory_write(2, 0x0f);
    assert_eq!(planes(&mut v, 2), [0xf0, 0x0f, 0x0f, 0xcc]);
    indexed(&mut v, 0x3ce, 3, 0);
    // Mode 1 copies the latches.
    indexed(&mut v, 0x3ce, 5, 1);
    v.memory_read(1);
    v.memory_write(3, 0);
    assert_eq!(planes(&mut v, 3), [0, 0xff, 0xff, 0x3c]);
    // Mode 2 under a bit mask.
    indexed(&mut v, 0x3ce, 5, 2);
    indexed(&mut v, 0x3ce, 8, 0x0f);
    v.memory_read(1);
    v.memory_write(4, 9);
    assert_eq!(planes(&mut v, 4), [0x0f, 0xf0, 0xf0, 0x3f]);
    // Mode 3: the byte is a bit mask too.
    indexed(&mut v, 0x3ce, 5, 3);
    v.memory_read(0x100);
    v.memory_write(5, 0x3c);
    assert_eq!(planes(&mut v, 5), [0, 0x0c, 0x0c, 0]);
    // Read mode 1 compares colours in the planes that count.
    indexed(&mut v, 0x3ce, 5, 8);
    indexed(&mut v, 0x3ce, 2, 6);
    assert_eq!(v.memory_read(5), 0x0c);
    indexed(&mut v, 0x3ce, 7, 0);
    assert_eq!(v.memory_read(5), 0xff);
    assert_eq!(v.window(), None);
}

#[test]
fn planar_pixels() {
    let mut v = with(&PLANAR);
    // Pixel (9, 2) in colour 11, as BIOSes draw.
    indexed(&mut v, 0x3ce, 0, 11);
    indexed(&mut v, 0x3ce, 1, 15);
    indexed(&mut v, 0x3ce, 8, 0x40);
    let at = 2 * 80 + 1;
    v.memory_read(at);
    v.memory_write(at, 0xff);
    let frame = v.render(0);
    assert_eq!((frame.width, frame.height), (640, 480));
    let lit: Vec<_> = (0..frame.pixels.len()).filter(|&n| frame.pixels[n] != 0).collect();
    assert_eq!((lit, pixel(&frame, 9, 2)), (vec![2 * 640 + 9], colour(11)));
    // Panned by three dots, one line up.
    attribute(&mut v, 0x13, 3);
    indexed(&mut v, 0x3d4, 13, 80);
    assert_eq!(pixel(&v.render(0), 6, 1), colour(11));
    // A plane that is not enabled.
    attribute(&mut v, 0x12, 7);
    assert_eq!(pixel(&v.render(0), 6, 1), colour(3));
    assert_eq!(v.text(), None);
}

#[test]
fn chained_pixels_are_ram() {
    let mut v = with(&CHAINED);
    v.memory_write(320 * 3 + 5, 77);
    assert_eq!(v.memory_read(320 * 3 + 5), 77);
    assert_eq!(v.window(), Some(Window { at: 0, offset: 0, len: 0x1_0000 }));
    // What goes around the chip is the same.
    v.memory().write(320 * 199 + 319, &[200]);
    let frame = v.render(0);
    assert_eq!((frame.width, frame.height), (640, 400));
    for (x, y) in [(10, 6), (11, 7)] {
        assert_eq!(pixel(&frame, x, y), colour(77));
    }
    assert_eq!((pixel(&frame, 12, 6), pixel(&frame, 10, 8)), (0, 0));
    assert_eq!(pixel(&frame, 639, 399), colour(200));
    for (port, index, value) in [(0x3c4, 2, 7), (0x3ce, 8, 0), (0x3ce, 5, 0x48), (0x3ce, 3, 1)] {
        let mut v = v.clone();
        indexed(&mut v, port, index, value);
        assert_eq!(v.window(), None, "{port:#x} {index}");
    }
}

#[test]
fn mode_x_pages() {
    let mut v = with(&CHAINED);
    indexed(&mut v, 0x3c4, 4, 6);
    v.port_write(0, 0x3c2, 0xe3);
    let crtc = [(0x11, 0x2c), (6, 0x0d), (7, 0x3e), (0x10, 0xea), (0x12, 0xdf)];
    for (index, value) in crtc.into_iter().chain([(0x14, 0), (0x17, 0xe3), (0x0c, 0x4b)]) {
        indexed(&mut v, 0x3d4, index, value);
    }
    // Pixel (6, 1) of the second page: plane 2, page at 4B00H.
    indexed(&mut v, 0x3c4, 2, 4);
    v.memory_write(0x4b00 + 80 + 1, 99);
    let frame = v.render(0);
    assert_eq!((frame.width, frame.height), (640, 480));
    assert_eq!([(12, 2), (13, 3), (14, 2)].map(|(x, y)| pixel(&frame, x, y)), {
        [colour(99), colour(99), 0]
    });
    assert_eq!(v.window(), None);
}

#[test]
fn cga_lines_are_interleaved() {
    let mut v = with(&CGA);
    v.memory_write(B8000, 0b00_01_10_11);
    v.memory_write(B8000 + 1, 0b11_00_00_00);
    v.memory_write(B8000 + 0x2000, 0b10_00_00_00);
    v.memory_write(B8000 + 80, 0b01_00_00_00);
    let frame = v.render(0);
    assert_eq!((frame.width, frame.height), (640, 400));
    let line = |y| (0..5).map(|x| pixel(&frame, 2 * x, y)).collect::<Vec<_>>();
    assert_eq!(line(1), [0, 1, 2, 3, 3].map(colour));
    assert_eq!(line(2), [2, 0, 0, 0, 0].map(colour));
    assert_eq!(line(4), [1, 0, 0, 0, 0].map(colour));
}

#[test]
fn a_linear_mode_is_found_set_and_drawn() {
    let mut v = vga();
    v.dispi_write(0x1ce, 0);
    assert_eq!((v.dispi_read(0x1ce), v.dispi_read(0x1cf)), (0, 0xb0c5));
    v.memory().write(5, &[1]);
    linear(&mut v, 1024, 768, 32, 0x41);
    assert_eq!(v.memory().read_u32(4), 0, "enabling clears");
    v.memory().write_u32((3 * 1024 + 7) * 4, 0xff12_3456);
    let frame = v.render(0);
    assert_eq!((frame.width, frame.height, pixel(&frame, 7, 3)), (1024, 768, 0x12_3456));
    // A larger virtual screen, moved.
    dispi(&mut v, 6, 2048);
    dispi(&mut v, 8, 8);
    dispi(&mut v, 9, 2);
    v.memory().write_u32((3 * 2048 + 9) * 4, 0xabcdef);
    assert_eq!(pixel(&v.render(0), 1, 1), 0xabcdef);
    v.dispi_write(0x1ce, 7);
    assert_eq!(v.dispi_read(0x1cf), 2048);
    // Memory is kept on demand; the largest values are told on demand.
    linear(&mut v, 800, 600, 16, 0xc1);
    assert_eq!(v.memory().read_u32((3 * 2048 + 9) * 4), 0xabcdef);
    dispi(&mut v, 4, 2);
    let caps = [1, 2, 3, 10].map(|n| {
        v.dispi_write(0x1ce, n);
        v.dispi_read(0x1d0)
    });
    assert_eq!(caps, [2560, 1600, 32, 256]);
}

#[test]
fn linear_pixel_formats() {
    // Bits per pixel, bytes of pixel (1, 0), what is shown.
    let rows: [(u16, &[u8], u32); 5] = [
        (8, &[0xc5], colour(0xc5)),
        (15, &[0x1f, 0x7c], 0xff00ff),
        (16, &[0xe0, 0x07], 0x00ff00),
        (24, &[1, 2, 3], 0x030201),
        (32, &[1, 2, 3, 4], 0x030201),
    ];
    for (bpp, bytes, shown) in rows {
        let mut v = with(&TEXT);
        linear(&mut v, 640, 480, bpp, 0x41);
        v.memory().write(bytes.len() as u64, bytes);
        let frame = v.render(0);
        let line: Vec<_> = (0..3).map(|x| pixel(&frame, x, 0)).collect();
        assert_eq!(line, [0, shown, 0], "{bpp} bits");
    }
    // Planar: bit 6 of planes 0 and 3.
    let mut v = with(&PLANAR);
    linear(&mut v, 800, 600, 4, 1);
    indexed(&mut v, 0x3c4, 2, 9);
    v.memory_write(100 * 599, 0x40);
    let frame = v.render(0);
    assert_eq!((frame.height, pixel(&frame, 1, 599)), (600, colour(9)));
}

#[test]
fn banks_of_a_linear_mode_are_ram() {
    let mut v = vga();
    linear(&mut v, 640, 480, 32, 1);
    dispi(&mut v, 5, 3);
    assert_eq!(v.window(), Some(Window { at: 0, offset: 3 << 16, len: 1 << 16 }));
    v.memory_write(0x104, 0x99);
    assert_eq!((v.memory_read(0x104), v.memory_read(0x1_8000)), (0x99, 0xff));
    let at = 0x3_0104 / 4;
    assert_eq!(pixel(&v.render(0), at % 640, at / 640), 0x99);
    dispi(&mut v, 4, 0);
    assert_eq!(v.window(), None);
}

#[test]
fn a_dark_screen_is_black() {
    let mut v = with(&CHAINED);
    v.memory_write(0, 1);
    assert_eq!(pixel(&v.render(0), 0, 0), colour(1));
    v.port_read(0, 0x3da);
    v.port_write(0, 0x3c0, 0);
    assert_eq!(pixel(&v.render(0), 0, 0), 0);
    v.port_read(0, 0x3da);
    v.port_write(0, 0x3c0, 0x20);
    assert_eq!(pixel(&v.render(0), 0, 0), colour(1));
    indexed(&mut v, 0x3c4, 1, 0x21);
    assert_eq!(pixel(&v.render(0), 0, 0), 0);
    let mut v = with(&TEXT);
    print(&mut v, 0, b"x", 7);
    indexed(&mut v, 0x3c4, 1, 0x20);
    let screen = v.text().unwrap();
    assert_eq!((screen.cells[0], screen.cursor), ((b' ', 0), None));
}

#[test]
fn the_dac_counts_and_masks() {
    let mut v = with(&CHAINED);
    v.port_write(0, 0x3c7, 255);
    assert_eq!(v.port_read(0, 0x3c7), 3);
    let read: Vec<_> = (0..6).map(|_| v.port_read(0, 0x3c9)).collect();
    assert_eq!(read, [3, 0, 63, 0, 0, 0]);
    v.memory_write(0, 0xff);
    v.port_write(0, 0x3c6, 0x0f);
    assert_eq!(pixel(&v.render(0), 0, 0), colour(15));
    // Eight bits.
    linear(&mut v, 640, 480, 8, 0x61);
    v.port_write(0, 0x3c8, 2);
    [0x12, 0x34, 0xff].into_iter().for_each(|c| v.port_write(0, 0x3c9, c));
    v.memory_write(0, 2);
    assert_eq!(pixel(&v.render(0), 0, 0), 0x1234ff);
}

#[test]
fn retraces_come_at_the_modes_rate() {
    let mut v = with(&TEXT);
    let line_ns = 900.0 / 28.322e6 * 1e9;
    let mut status = |line: f64| v.port_read((line * line_ns) as u64, 0x3da);
    assert_eq!([0.1, 0.9, 399.5, 400.5].map(&mut status), [0, 1, 0, 1]);
    assert_eq!([411.5, 412.5, 413.5, 414.5].map(&mut status), [1, 9, 9, 1]);
    // Every mode has retraces, and times between them.
    for enable in [0, 1] {
        let mut v = vga();
        v.port_write(0, 0x3c2, 1);
        linear(&mut v, 640, 480, 8, enable);
        let seen: std::collections::HashSet<u8> =
            (0..20_000).map(|n| v.port_read(n * 1000, 0x3da)).collect();
        assert_eq!(seen, [0, 1, 9].into());
    }
}

#[test]
fn registers_keep_their_bits() {
    let mut v = with(&TEXT);
    let mut read = |port: u16, index: u8| {
        v.port_write(0, port, index);
        v.port_read(0, port + 1)
    };
    assert_eq!([read(0x3c4, 4), read(0x3ce, 5), read(0x3d4, 0x13)], [2, 0x10, 0x28]);
    assert_eq!([read(0x3ce, 12), read(0x3d4, 0x40), read(0x3b4, 0x13)], [0, 0, 0xff]);
    assert_eq!((v.port_read(0, 0x3cc), v.port_read(0, 0x3ca)), (0x67, 0));
    // Timing is protected, but for a bit of line compare.
    indexed(&mut v, 0x3d4, 0, 0);
    indexed(&mut v, 0x3d4, 7, 0);
    v.port_write(0, 0x3d4, 0);
    assert_eq!(v.port_read(0, 0x3d5), 0x5f);
    v.port_write(0, 0x3d4, 7);
    assert_eq!(v.port_read(0, 0x3d5), 0x0f);
    // 3DAH makes 3C0H an index again.
    v.port_write(0, 0x3c0, 0x30);
    v.port_read(0, 0x3da);
    v.port_write(0, 0x3c0, 0x31);
    assert_eq!(v.port_read(0, 0x3c0), 0x31);
    // Monochrome: the other addresses.
    v.port_write(0, 0x3c2, 0x66);
    v.port_write(0, 0x3b4, 0x13);
    assert_eq!((v.port_read(0, 0x3b5), v.port_read(0, 0x3d5)), (0x28, 0xff));
}

#[test]
fn the_pci_function() {
    let memory = Memory::flat(4096).unwrap();
    let host = Host { now: 0, memory: &memory };
    let mut v = vga();
    assert_eq!((v.config().dword(0), v.config().dword(8)), (0x1111_1234, 0x0300_0002));
    assert_eq!(v.config().dword(0x10) & 15, 8);
    assert_eq!((v.read(host, ROM_BAR, 0, 4), v.read(host, MMIO, 0x600, 4)), (0xffff_aa55, 8));
    v.write(host, MMIO, 0x402, 1, 0x67);
    v.write(host, MMIO, 0x414, 2, 0x2813);
    assert_eq!(v.read(host, MMIO, 0x414, 2), 0x2813);
    for (index, value) in [(1, 64), (2, 48), (3, 32), (4, 1)] {
        v.write(host, MMIO, 0x500 + 2 * index, 2, value);
    }
    assert_eq!(v.read(host, MMIO, 0x502, 4), 64 | 48 << 16);
    v.write(host, MMIO, 0x400, 1, 0x20);
    v.write(host, FRAME_BUFFER, 4, 4, 0x0011_2233);
    assert_eq!((v.read(host, FRAME_BUFFER, 4, 8), v.render(0).pixels[1]), (0x11_2233, 0x11_2233));
    v.write(host, MMIO, 0x604, 4, 0xbebe_bebe);
    assert_eq!((v.read(host, MMIO, 0x604, 4), v.render(0).pixels[1]), (0xbebe_bebe, 0x22_1100));
    v.reset();
    assert_eq!((v.read(host, MMIO, 0x508, 2), v.text().unwrap().cursor), (0, None));
}

#[test]
fn random_accesses() {
    let memory = Memory::flat(4096).unwrap();
    let mut rng = Rng(9);
    for len in [1 << 18, 1 << 20] {
        let mut v = Vga::new(DeviceRam::alone(len).unwrap(), Vec::new());
        let mut now = 0;
        for n in 0..100_000 {
            now += rng.below(1 << 24);
            let (value, offset) = (rng.next(), rng.below(0x2_0000) as u32);
            let host = Host { now, memory: &memory };
            let size = 1 << rng.below(4);
            match rng.below(9) {
                0 | 1 => v.port_write(now, 0x3b0 + rng.below(0x30) as u16, value as u8),
                2 => drop(v.port_read(now, 0x3b0 + rng.below(0x30) as u16)),
                3 => v.memory_write(offset, value as u8),
                4 => drop(v.memory_read(offset)),
                5 => dispi(&mut v, rng.below(12) as u16, value as u16 >> rng.below(16)),
                6 => v.write(host, MMIO, rng.below(4096) & !(size - 1), size as u8, value),
                7 => drop(v.read(host, MMIO, rng.below(4096) & !(size - 1), size as u8)),
                _ => {
                    let bar = [FRAME_BUFFER, MMIO, ROM_BAR][rng.below(3) as usize];
                    v.read(host, bar, rng.below(len), size as u8);
                }
            }
            if let Some(window) = v.window() {
                assert!(window.offset + window.len <= len && u64::from(window.at) < 0x2_0000);
            }
            if n % 400 == 0 {
                let frame = v.render(now);
                assert_eq!(frame.pixels.len(), frame.width * frame.height);
                let cells = v.text().map_or(0, |t| t.cells.len() - t.columns * t.rows);
                assert_eq!(cells, 0);
                set(&mut v, [&TEXT, &PLANAR, &CHAINED, &CGA][rng.below(4) as usize]);
            }
        }
        v.beam(u64::MAX);
        drop(v.render(u64::MAX));
    }
}
