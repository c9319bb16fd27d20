//! One client of the VNC server, in its thread.
//!
//! The server keeps what the client has been shown, and compares it with the screen in tiles when
//! the client has asked for an update; what differs goes out as rectangles of neighbouring tiles.
//! A request is answered when there is something to tell, so a still screen costs no traffic.
//!
//! Messages are read into a small buffer and taken from it whole. What breaks the protocol, or the
//! limits below, is an error, and an error ends the connection.
//!
//! Source: RFC 6143, 7.1–7.3 (handshake), 7.5 (client messages), 7.6.1 (updates), 7.7, 7.8
//! (encodings, pseudo-encodings).

use super::format::{NATIVE, PixelFormat, colour_map};
use super::zrle::Zrle;
use super::{Pointer, Shared, Stream};
use crate::Frame;
use crate::keys::{self, Key};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long each step of the handshake may take, and how long a client may leave data unread.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the screen is looked at while a request waits.
const FRAME_TIME: Duration = Duration::from_millis(33);
/// How often a client that waits for nothing looks for the server's end.
const IDLE: Duration = Duration::from_millis(250);
/// The most encodings, and bytes of pasted text, that a client may send.
const MAX_ENCODINGS: usize = 1024;
const MAX_CUT_TEXT: usize = 1 << 20;
/// The most pixels in a line, and lines; the rectangles of an update can then be counted.
const MAX_SIZE: usize = 8192;
/// Width and height of the tiles that are compared: a group of ZRLE's, a line of text.
const TILE: (usize, usize) = (64, 16);

const RAW: i32 = 0;
const ZRLE: i32 = 16;
const CURSOR: i32 = -239;
const DESKTOP_SIZE: i32 = -223;

/// A dot, white in a black ring: the guest draws the pointer, this is where the client's is.
const DOT: [&[u8; 5]; 5] = [b".###.", b"#   #", b"#   #", b"#   #", b".###."];

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// What the client has on its screen.
struct View {
    width: usize,
    height: usize,
    pixels: Vec<u32>,
    /// Tiles that it wants whatever is in them.
    stale: Vec<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rect {
    x: Range<usize>,
    y: Range<usize>,
}

impl Rect {
    fn overlaps(&self, other: &Rect) -> bool {
        let within = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        within(&self.x, &other.x) && within(&self.y, &other.y)
    }
}

/// The size of a frame, as far as clients are shown it.
fn size(frame: &Frame) -> (usize, usize) {
    (frame.width.clamp(1, MAX_SIZE), frame.height.clamp(1, MAX_SIZE))
}

impl View {
    fn new((width, height): (usize, usize)) -> View {
        let tiles = width.div_ceil(TILE.0) * height.div_ceil(TILE.1);
        View { width, height, pixels: vec![0; width * height], stale: vec![true; tiles] }
    }

    fn line(&self, y: usize, columns: Range<usize>) -> &[u32] {
        &self.pixels[y * self.width..][columns]
    }

    /// Each tile and its number.
    fn tiles(&self) -> impl Iterator<Item = (usize, Rect)> + use<> {
        let (width, height) = (self.width, self.height);
        let lines = (0..height).step_by(TILE.1);
        let tiles = lines.flat_map(move |y| {
            (0..width)
                .step_by(TILE.0)
                .map(move |x| Rect { x: x..width.min(x + TILE.0), y: y..height.min(y + TILE.1) })
        });
        tiles.enumerate()
    }

    /// Takes what has changed within `wanted` from `frame`: the rectangles that it is in.
    fn take(&mut self, frame: &Frame, wanted: &Rect) -> Vec<Rect> {
        let mut changed: Vec<Rect> = Vec::new();
        for (n, tile) in self.tiles().filter(|(_, tile)| tile.overlaps(wanted)) {
            let mut differs = std::mem::take(&mut self.stale[n]);
            for y in tile.y.clone() {
                let theirs = frame.pixels.get(y.wrapping_mul(frame.width)..).unwrap_or(&[]);
                let columns = tile.x.start..tile.x.end.min(frame.width);
                let theirs = theirs.get(columns).filter(|_| y < frame.height).unwrap_or(&[]);
                // A client that keeps its size sees black around a smaller screen.
                let ours = &mut self.pixels[y * self.width..][tile.x.clone()];
                let (ours, around) = ours.split_at_mut(theirs.len());
                if *ours != *theirs || around.iter().any(|&pixel| pixel != 0) {
                    ours.copy_from_slice(theirs);
                    around.fill(0);
                    differs = true;
                }
            }
            if !differs {
                continue;
            }
            match changed.last_mut() {
                Some(last) if last.y == tile.y && last.x.end == tile.x.start => {
                    last.x.end = tile.x.end;
                }
                _ => changed.push(tile),
            }
        }
        // Lines of tiles that go on below become one.
        let mut rects: Vec<Rect> = Vec::new();
        for rect in changed {
            match rects.iter_mut().find(|r| r.x == rect.x && r.y.end == rect.y.start) {
                Some(above) => above.y.end = rect.y.end,
                None => rects.push(rect),
            }
        }
        rects
    }
}

struct Client<'a> {
    stream: Stream,
    shared: &'a Shared,
    format: PixelFormat,
    view: View,
    zrle: Option<Zrle>,
    uses_zrle: bool,
    resizes: bool,
    /// It understands the cursor's shape and has not been sent it.
    lacks_cursor: bool,
    /// What it waits for.
    wanted: Option<Rect>,
    /// When the screen was last looked at for it.
    looked: Option<Instant>,
    held: BTreeSet<u16>,
    pointer: Option<(u16, u16, u8)>,
    /// Bytes of pasted text yet to come.
    skip: usize,
}

/// Talks to a client until it leaves, misbehaves or the server ends.
pub(super) fn serve(mut stream: Stream, shared: &Shared) -> io::Result<()> {
    stream.set_timeouts(PATIENCE, PATIENCE)?;
    let view = View::new(size(&shared.frame()));
    shake_hands(&mut stream, shared, &view)?;
    let (format, _) = PixelFormat::parse(&NATIVE).ok_or_else(|| broken("no format"))?;
    let mut client = Client {
        stream,
        shared,
        format,
        view,
        zrle: None,
        uses_zrle: false,
        resizes: false,
        lacks_cursor: false,
        wanted: None,
        looked: None,
        held: BTreeSet::new(),
        pointer: None,
        skip: 0,
    };
    let result = client.talk();
    // Nobody is left to let its keys and buttons go.
    client.held.iter().for_each(|&code| shared.console.key(Key::up(code)));
    if let Some((x, y, _)) = client.pointer.filter(|&(_, _, buttons)| buttons != 0) {
        shared.console.pointer(Pointer { x, y, ..Pointer::default() });
    }
    result
}

fn shake_hands(stream: &mut Stream, shared: &Shared, view: &View) -> io::Result<()> {
    stream.write_all(b"RFB 003.008\n")?;
    let mut version = [0; 12];
    stream.read_exact(&mut version)?;
    let minor = version.strip_prefix(b"RFB 003.").and_then(|v| v.strip_suffix(b"\n"));
    let minor: u16 = minor
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .ok_or_else(|| broken("no RFB client"))?;
    // Security type 1 is none.
    if minor < 7 {
        stream.write_all(&[0, 0, 0, 1])?;
    } else {
        stream.write_all(&[1, 1])?;
        let mut chosen = [0];
        stream.read_exact(&mut chosen)?;
        if chosen != [1] {
            let reason = b"there is no such security type";
            let mut refusal = vec![0, 0, 0, 1, 0, 0, 0, reason.len() as u8];
            refusal.extend(reason);
            stream.write_all(if minor < 8 { &[] } else { &refusal })?;
            return Err(broken("no such security type"));
        }
        stream.write_all(if minor < 8 { &[] } else { &[0; 4] })?;
    }
    let mut shared_flag = [0];
    stream.read_exact(&mut shared_flag)?;
    let mut init = Vec::new();
    init.extend((view.width as u16).to_be_bytes());
    init.extend((view.height as u16).to_be_bytes());
    init.extend(NATIVE);
    init.extend((shared.name.len() as u32).to_be_bytes());
    init.extend(shared.name.as_bytes());
    stream.write_all(&init)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) << 16 | u32::from(half(bytes, at + 2))
}

impl Client<'_> {
    fn talk(&mut self) -> io::Result<()> {
        let mut input = Vec::new();
        let mut chunk = vec![0; 1 << 14];
        while !self.shared.stops() {
            let wait = if self.wanted.is_some() { FRAME_TIME } else { IDLE };
            self.stream.set_timeouts(wait, PATIENCE)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => input.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            let mut used = 0;
            loop {
                let skipped = self.skip.min(input.len() - used);
                (self.skip, used) = (self.skip - skipped, used + skipped);
                match self.message(&input[used..])? {
                    Some(len) => used += len,
                    None => break,
                }
            }
            input.drain(..used);
            self.update()?;
        }
        Ok(())
    }

    /// Does what the message at the start of `bytes` says: its length, or `None` while it is not
    /// all there.
    fn message(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(&kind) = bytes.first() else { return Ok(None) };
        let encodings = usize::from(half(bytes, 2));
        let len = match kind {
            0 => 20,
            2 if bytes.len() < 4 => 4,
            2 if encodings > MAX_ENCODINGS => return Err(broken("too many encodings")),
            2 => 4 + 4 * encodings,
            3 => 10,
            4 | 6 => 8,
            5 => 6,
            _ => return Err(broken("no such message")),
        };
        if bytes.len() < len {
            return Ok(None);
        }
        match kind {
            0 => self.set_pixel_format(&bytes[4..])?,
            2 => self.set_encodings(bytes[4..len].chunks(4).map(|b| word(b, 0) as i32)),
            3 => self.request(bytes[1] != 0, [2, 4, 6, 8].map(|at| half(bytes, at).into())),
            4 => self.key(bytes[1] != 0, word(bytes, 4)),
            5 => self.point(half(bytes, 2), half(bytes, 4), bytes[1]),
            _ => {
                self.skip = word(bytes, 4) as usize;
                if self.skip > MAX_CUT_TEXT {
                    return Err(broken("too much text"));
                }
            }
        }
        Ok(Some(len))
    }

    fn set_pixel_format(&mut self, format: &[u8]) -> io::Result<()> {
        let format = format.first_chunk().and_then(PixelFormat::parse);
        let (format, mapped) = format.ok_or_else(|| broken("no such pixel format"))?;
        self.format = format;
        if mapped {
            self.stream.write_all(&colour_map())?;
        }
        Ok(())
    }

    fn set_encodings(&mut self, encodings: impl Iterator<Item = i32> + Clone) {
        let first = encodings.clone().find(|&e| e == RAW || e == ZRLE);
        self.uses_zrle = first == Some(ZRLE);
        self.resizes = encodings.clone().any(|e| e == DESKTOP_SIZE);
        self.lacks_cursor = encodings.clone().any(|e| e == CURSOR);
    }

    fn request(&mut self, incremental: bool, [x, y, width, height]: [usize; 4]) {
        let mut wanted = Rect { x: x..x + width, y: y..y + height };
        if !incremental {
            for (n, _) in self.view.tiles().filter(|(_, tile)| tile.overlaps(&wanted)) {
                self.view.stale[n] = true;
            }
            self.looked = None;
        }
        if let Some(before) = &self.wanted {
            wanted.x = wanted.x.start.min(before.x.start)..wanted.x.end.max(before.x.end);
            wanted.y = wanted.y.start.min(before.y.start)..wanted.y.end.max(before.y.end);
        }
        self.wanted = Some(wanted);
    }

    fn key(&mut self, pressed: bool, keysym: u32) {
        let Some(code) = keys::from_keysym(keysym) else { return };
        let known = if pressed { self.held.insert(code) } else { self.held.remove(&code) };
        // A key that comes up without having been down was another client's.
        if pressed || known {
            self.shared.console.key(Key { code, pressed });
        }
    }

    fn point(&mut self, x: u16, y: u16, mask: u8) {
        let (old_x, old_y, old_mask) = self.pointer.unwrap_or((x, y, 0));
        self.pointer = Some((x, y, mask));
        let turned = |bit: u8| i32::from(mask & !old_mask & bit != 0);
        self.shared.console.pointer(Pointer {
            x,
            y,
            dx: i32::from(x) - i32::from(old_x),
            dy: i32::from(old_y) - i32::from(y),
            // Left, middle, right there; left, right, middle here.
            buttons: mask & 1 | mask >> 1 & 2 | mask << 1 & 4,
            wheel: turned(0x08) - turned(0x10),
        });
    }

    /// Sends what has changed, when it is wanted.
    fn update(&mut self) -> io::Result<()> {
        let early = self.looked.is_some_and(|at| at.elapsed() < FRAME_TIME / 2);
        let Some(wanted) = self.wanted.clone().filter(|_| !early) else { return Ok(()) };
        self.looked = Some(Instant::now());
        let frame = self.shared.frame();
        let mut message = vec![0; 4];
        let mut count: u16 = 0;
        let size = size(&frame);
        if self.resizes && size != (self.view.width, self.view.height) {
            // Alone: the client asks anew for what is in it.
            self.view = View::new(size);
            header(&mut message, &Rect { x: 0..size.0, y: 0..size.1 }, DESKTOP_SIZE);
            count = 1;
        } else {
            if std::mem::take(&mut self.lacks_cursor) {
                self.put_cursor(&mut message);
                count = 1;
            }
            for rect in self.view.take(&frame, &wanted) {
                self.put(&mut message, &rect);
                count += 1;
            }
        }
        if count > 0 {
            self.wanted = None;
            message[2..4].copy_from_slice(&count.to_be_bytes());
            self.stream.write_all(&message)?;
        }
        Ok(())
    }

    fn put(&mut self, message: &mut Vec<u8>, rect: &Rect) {
        header(message, rect, if self.uses_zrle { ZRLE } else { RAW });
        let Client { view, format, zrle, .. } = self;
        if self.uses_zrle {
            let zrle = zrle.get_or_insert_with(Zrle::new);
            let size = (rect.x.len(), rect.y.len());
            zrle.encode(message, format, size, |y| view.line(rect.y.start + y, rect.x.clone()));
        } else {
            for y in rect.y.clone() {
                view.line(y, rect.x.clone()).iter().for_each(|&p| format.put(message, p));
            }
        }
    }

    fn put_cursor(&self, message: &mut Vec<u8>) {
        // Its place is the hot spot.
        header(message, &Rect { x: 2..7, y: 2..7 }, CURSOR);
        for &pixel in DOT.into_iter().flatten() {
            self.format.put(message, if pixel == b' ' { 0xff_ffff } else { 0 });
        }
        let solid = |mask: u8, &pixel: &u8| mask << 1 | u8::from(pixel != b'.');
        message.extend(DOT.iter().map(|line| line.iter().fold(0, solid) << 3));
    }
}

/// The head of a rectangle.
fn header(message: &mut Vec<u8>, rect: &Rect, encoding: i32) {
    let at = if encoding == DESKTOP_SIZE { (0, 0) } else { (rect.x.start, rect.y.start) };
    for n in [at.0, at.1, rect.x.len(), rect.y.len()] {
        message.extend((n as u16).to_be_bytes());
    }
    message.extend(encoding.to_be_bytes());
}
