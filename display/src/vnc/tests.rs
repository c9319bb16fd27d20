//! The server as an RFB client sees it: one that decodes Raw, ZRLE and the pseudo-encodings, and
//! some that misbehave.

use super::*;
use crate::keys::CTRL;
use flate2::{Decompress, FlushDecompress};

/// A console whose screen a test paints.
#[derive(Default)]
struct Painted {
    frame: Mutex<Frame>,
    keys: Mutex<Vec<Key>>,
    pointers: Mutex<Vec<Pointer>>,
}

impl Console for Painted {
    fn frame(&self) -> Frame {
        self.frame.lock().unwrap().clone()
    }

    fn key(&self, key: Key) {
        self.keys.lock().unwrap().push(key);
    }

    fn pointer(&self, pointer: Pointer) {
        self.pointers.lock().unwrap().push(pointer);
    }
}

fn noise(n: usize) -> u32 {
    (n as u32).wrapping_mul(0x9e37_79b9) >> 8
}

/// A screen that has something for each form of a ZRLE tile.
fn picture(width: usize, height: usize) -> Frame {
    let pixel = |n: usize| {
        let (x, y) = (n % width, n / width);
        match x / 64 {
            0 => 0x11_2233,
            1 => [0, 0xff_ffff][x * y / 3 % 2],
            2 => noise(n % 13),
            3 => noise(n),
            4 => noise(n / 300),
            _ => noise((x / 9 + y / 5) % 90),
        }
    };
    Frame { width, height, pixels: (0..width * height).map(pixel).collect() }
}

struct Client {
    stream: Stream,
    size: (usize, usize),
    bytes: usize,
    compact: usize,
    pixels: Vec<u32>,
    zlib: Decompress,
    rects: Vec<[usize; 4]>,
    cursor: Option<(Vec<u8>, Vec<u8>)>,
}

fn be(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b))
}

impl Client {
    fn connect(server: &Server, version: &[u8; 12]) -> Client {
        let mut stream = match server.port {
            Some(port) => Stream::Tcp(TcpStream::connect(("127.0.0.1", port)).unwrap()),
            None => Stream::Unix(UnixStream::connect(server.path.as_ref().unwrap()).unwrap()),
        };
        let get = |stream: &mut Stream, n: usize| {
            let mut bytes = vec![0; n];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(get(&mut stream, 12), b"RFB 003.008\n");
        stream.write_all(version).unwrap();
        if version[10] < b'7' {
            assert_eq!(get(&mut stream, 4), [0, 0, 0, 1]);
        } else {
            assert_eq!(get(&mut stream, 2), [1, 1]);
            stream.write_all(&[1]).unwrap();
            if version[10] == b'8' {
                assert_eq!(get(&mut stream, 4), [0; 4]);
            }
        }
        stream.write_all(&[1]).unwrap();
        let init = get(&mut stream, 24);
        assert_eq!(init[4..8], [32, 24, 0, 1]);
        assert_eq!(get(&mut stream, be(&init[20..])), b"a guest");
        let size = (be(&init[..2]), be(&init[2..4]));
        Client {
            stream,
            size,
            bytes: 4,
            compact: 3,
            pixels: vec![0xdead; size.0 * size.1],
            zlib: Decompress::new(true),
            rects: Vec::new(),
            cursor: None,
        }
    }

    fn get(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn number(&mut self, n: usize) -> usize {
        be(&self.get(n))
    }

    fn encodings(&mut self, encodings: &[i32]) {
        let mut message = vec![2, 0, 0, encodings.len() as u8];
        encodings.iter().for_each(|e| message.extend(e.to_be_bytes()));
        self.stream.write_all(&message).unwrap();
    }

    fn ask(&mut self, incremental: bool) {
        let [w, h] = [self.size.0 as u16, self.size.1 as u16].map(u16::to_be_bytes);
        let message = [3, incremental.into(), 0, 0, 0, 0, w[0], w[1], h[0], h[1]];
        self.stream.write_all(&message).unwrap();
    }

    /// Takes one update.
    fn update(&mut self) {
        assert_eq!(self.number(2), 0);
        self.rects.clear();
        for _ in 0..self.number(2) {
            let [x, y, w, h] = [0; 4].map(|_| self.number(2));
            match self.number(4) as u32 as i32 {
                0 => {
                    let bytes = self.get(w * h * self.bytes);
                    for (n, pixel) in bytes.chunks(self.bytes).enumerate() {
                        self.set(x + n % w, y + n / w, little(pixel));
                    }
                }
                16 => {
                    let len = self.number(4);
                    let data = self.get(len);
                    let plain = self.inflate(&data);
                    let left = self.tiles(&plain, [x, y, w, h]);
                    assert_eq!(left, 0, "bytes after the last tile");
                }
                -223 => {
                    self.size = (w, h);
                    self.pixels = vec![0xdead; w * h];
                }
                -239 => {
                    let pixels = self.get(w * h * self.bytes);
                    self.cursor = Some((pixels, self.get(w.div_ceil(8) * h)));
                }
                other => panic!("encoding {other}"),
            }
            self.rects.push([x, y, w, h]);
        }
    }

    fn set(&mut self, x: usize, y: usize, pixel: u32) {
        self.pixels[y * self.size.0..][..self.size.0][x] = pixel;
    }

    fn inflate(&mut self, mut data: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !data.is_empty() {
            plain.reserve(1 << 16);
            let before = self.zlib.total_in();
            self.zlib.decompress_vec(data, &mut plain, FlushDecompress::Sync).unwrap();
            data = &data[(self.zlib.total_in() - before) as usize..];
        }
        // What the last call had no room for.
        while plain.len() == plain.capacity() {
            plain.reserve(1 << 16);
            self.zlib.decompress_vec(&[], &mut plain, FlushDecompress::Sync).unwrap();
        }
        plain
    }

    /// Decodes the tiles of a ZRLE rectangle; gives how many bytes are left.
    fn tiles(&mut self, mut plain: &[u8], [x, y, w, h]: [usize; 4]) -> usize {
        let mut take = |n: usize| -> Vec<u8> {
            let (head, tail) = plain.split_at(n);
            plain = tail;
            head.to_vec()
        };
        let c = self.compact;
        let (mut forms, mut painted) = (std::collections::HashSet::new(), Vec::new());
        for ty in (y..y + h).step_by(64) {
            for tx in (x..x + w).step_by(64) {
                let (tw, th) = (64.min(x + w - tx), 64.min(y + h - ty));
                let kind = usize::from(take(1)[0]);
                let palette: Vec<u32> = (0..kind & 127).map(|_| little(&take(c))).collect();
                let mut tile = Vec::new();
                let run = |take: &mut dyn FnMut(usize) -> Vec<u8>| {
                    let mut len = 1;
                    loop {
                        let byte = usize::from(take(1)[0]);
                        len += byte;
                        if byte != 255 {
                            return len;
                        }
                    }
                };
                match kind {
                    0 => tile.extend((0..tw * th).map(|_| little(&take(c)))),
                    1 => tile.resize(tw * th, palette[0]),
                    2..=16 => {
                        let bits = [1, 2, 4][usize::from(kind > 2) + usize::from(kind > 4)];
                        for _ in 0..th {
                            let line = take((tw * bits).div_ceil(8));
                            for n in 0..tw {
                                let shift = 8 - bits - n * bits % 8;
                                let index = line[n * bits / 8] >> shift & ((1 << bits) - 1);
                                tile.push(palette[usize::from(index)]);
                            }
                        }
                    }
                    128 => {
                        while tile.len() < tw * th {
                            let pixel = little(&take(c));
                            tile.resize(tile.len() + run(&mut take), pixel);
                        }
                    }
                    130.. => {
                        while tile.len() < tw * th {
                            let index = usize::from(take(1)[0]);
                            let len = if index & 128 != 0 { run(&mut take) } else { 1 };
                            tile.resize(tile.len() + len, palette[index & 127]);
                        }
                    }
                    _ => panic!("subencoding {kind}"),
                }
                assert_eq!(tile.len(), tw * th);
                forms.insert(kind);
                painted.push((tx, ty, tw, tile));
            }
        }
        if (w, h) == (400, 300) {
            let has =
                |range: std::ops::RangeInclusive<usize>| forms.iter().any(|f| range.contains(f));
            assert!([0..=0, 1..=1, 2..=2, 5..=16, 128..=128, 130..=255].into_iter().all(has));
        }
        for (tx, ty, tw, tile) in painted {
            for (n, pixel) in tile.into_iter().enumerate() {
                self.set(tx + n % tw, ty + n / tw, pixel);
            }
        }
        plain.len()
    }
}

fn little(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b))
}

fn server(frame: Frame) -> (Arc<Painted>, Server) {
    let console = Arc::new(Painted { frame: Mutex::new(frame), ..Painted::default() });
    let address = Address::Tcp("127.0.0.1".into(), 0);
    let server = Server::start(&address, "a guest", console.clone()).unwrap();
    (console, server)
}

const V8: &[u8; 12] = b"RFB 003.008\n";

#[test]
fn raw_and_zrle_show_the_screen_and_what_changes() {
    for encodings in [&[0][..], &[16], &[7, 16, 0]] {
        let (console, server) = server(picture(400, 300));
        let mut c = Client::connect(&server, V8);
        c.encodings(encodings);
        c.ask(false);
        c.update();
        assert!(c.pixels == console.frame().pixels, "{encodings:?}");
        // Two pixels far apart: two rectangles of a tile each.
        c.ask(true);
        for n in [5, 399 + 400 * 299] {
            console.frame.lock().unwrap().pixels[n] ^= 0xff;
        }
        // The server may have looked between the two.
        while c.pixels != console.frame().pixels {
            c.update();
            assert!(c.rects.iter().all(|&[_, _, w, h]| w <= 64 && h <= 16), "{:?}", c.rects);
            c.ask(true);
        }
        // All of it once more on demand.
        c.pixels.fill(0xdead);
        c.ask(false);
        c.update();
        assert!(c.pixels == console.frame().pixels);
    }
}

#[test]
fn any_true_colour_format_and_a_colour_map() {
    let frame = Frame { width: 2, height: 1, pixels: vec![0xff_8000, 0x00_ff21] };
    // Bits, depth, big-endian, true colour; maxima; shifts; the bytes of both pixels.
    let rows: [(&[u8; 13], &[u8]); 5] = [
        (&[16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0], &[0, 0xfc, 0xe4, 7]),
        (&[16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0], &[0xfc, 0, 7, 0xe4]),
        (&[32, 24, 1, 1, 0, 255, 0, 255, 0, 255, 8, 16, 24], &[0, 128, 255, 0, 33, 255, 0, 0]),
        (&[8, 6, 0, 1, 0, 3, 0, 3, 0, 3, 4, 2, 0], &[0b11_10_00, 0b00_11_00]),
        (&[8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0b00_100_111, 0b00_111_000]),
    ];
    let (_console, server) = server(frame);
    for (format, pixels) in rows {
        let mut c = Client::connect(&server, V8);
        c.stream.write_all(&[&[0; 4], &format[..], &[0; 3]].concat()).unwrap();
        if format[3] == 0 {
            assert_eq!(c.get(6), [1, 0, 0, 0, 1, 0]);
            assert_eq!(c.get(256 * 6)[0b00_100_111 * 6..][..6], [255, 255, 0x92, 0x48, 0, 0]);
        }
        c.ask(false);
        assert_eq!(c.get(4 + 12)[..6], [0, 0, 0, 1, 0, 0]);
        assert_eq!(c.get(pixels.len()), pixels, "{format:?}");
    }
    let nonsense: [[u8; 13]; 5] = [
        [24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0],
        [16, 16, 0, 0, 0, 31, 0, 63, 0, 31, 11, 5, 0],
        [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 25, 8, 0],
        [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 200, 8, 0],
        [32, 24, 0, 1, 0, 0, 0, 255, 0, 255, 16, 8, 0],
    ];
    for format in nonsense {
        let mut c = Client::connect(&server, V8);
        c.stream.write_all(&[&[0; 4], &format[..], &[0; 3]].concat()).unwrap();
        assert!(matches!(c.stream.read(&mut [0]), Ok(0) | Err(_)), "{format:?}");
    }
}

#[test]
fn zrle_pixels_are_compact_in_the_client_format() {
    let (console, server) = server(picture(400, 300));
    // The three bytes at the top of a little-endian word.
    let format = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 24, 16, 8, 0, 0, 0];
    let mut c = Client::connect(&server, V8);
    c.stream.write_all(&[&[0; 4], &format[..]].concat()).unwrap();
    c.encodings(&[16]);
    c.ask(false);
    c.update();
    assert!(c.pixels == console.frame().pixels);
    // Sixteen bits are two bytes.
    let format = [16, 15, 0, 1, 0, 31, 0, 31, 0, 31, 10, 5, 0, 0, 0, 0];
    c.stream.write_all(&[&[0; 4], &format[..]].concat()).unwrap();
    c.compact = 2;
    c.ask(false);
    c.update();
    assert_eq!(c.pixels[0], 2 << 10 | 4 << 5 | 6);
}

#[test]
fn the_screen_may_change_its_size() {
    let (console, server) = server(picture(320, 200));
    let [mut resizes, mut keeps] = [0; 2].map(|_| Client::connect(&server, V8));
    resizes.encodings(&[16, -223, -239]);
    for c in [&mut resizes, &mut keeps] {
        c.ask(false);
        c.update();
        assert!(c.pixels == console.frame().pixels);
        c.ask(true);
    }
    let (pixels, mask) = resizes.cursor.take().unwrap();
    assert_eq!(
        (mask, &pixels[24..28]),
        (vec![0x70, 0xf8, 0xf8, 0xf8, 0x70], &[255, 255, 255, 0][..])
    );
    *console.frame.lock().unwrap() = picture(640, 100);
    resizes.update();
    assert_eq!((resizes.rects.as_slice(), resizes.size), (&[[0, 0, 640, 100]][..], (640, 100)));
    resizes.ask(true);
    resizes.update();
    assert!(resizes.pixels == console.frame().pixels);
    // The other sees what fits, and black below.
    keeps.update();
    let frame = console.frame();
    assert!((0..320 * 200).all(|n| keeps.pixels[n] == frame.pixel(n % 320, n / 320)));
}

#[test]
fn keys_and_pointer_reach_the_console() {
    let (console, server) = server(picture(64, 64));
    let mut c = Client::connect(&server, b"RFB 003.003\n");
    let key = |down: u8, keysym: u16| {
        let k = keysym.to_be_bytes();
        [4, down, 0, 0, 0, 0, k[0], k[1]]
    };
    c.stream.write_all(&key(1, 0xffe3)).unwrap();
    c.stream
        .write_all(&[key(1, 0x61), key(0, 0x61), key(0, 0x62), key(1, 0x3a9)].concat())
        .unwrap();
    // Pasted text is skipped, in pieces.
    c.stream.write_all(&[6, 0, 0, 0, 0, 0, 0, 100]).unwrap();
    c.stream.write_all(&[4; 60]).unwrap();
    c.stream.write_all(&[4; 40]).unwrap();
    c.stream.write_all(&[5, 0, 0, 10, 0, 20]).unwrap();
    c.stream.write_all(&[5, 0b1110, 0, 15, 0, 18]).unwrap();
    // An update is the answer to all that came before.
    c.ask(false);
    c.update();
    let a = 0x1e;
    assert_eq!(*console.keys.lock().unwrap(), [Key::down(CTRL), Key::down(a), Key::up(a)]);
    let first = Pointer { x: 10, y: 20, ..Pointer::default() };
    let second = Pointer { x: 15, y: 18, dx: 5, dy: 2, buttons: 0b110, wheel: 1 };
    assert_eq!(*console.pointers.lock().unwrap(), [first, second]);
    // What is held comes up when the client leaves.
    drop(c);
    while console.keys.lock().unwrap().len() < 4 || console.pointers.lock().unwrap().len() < 3 {
        thread::sleep(ACCEPT);
    }
    assert_eq!(console.keys.lock().unwrap()[3], Key::up(CTRL));
    assert_eq!(console.pointers.lock().unwrap()[2].buttons, 0);
}

#[test]
fn a_client_that_misbehaves_is_dropped_and_no_other() {
    let (console, server) = server(picture(100, 100));
    let mut good = Client::connect(&server, b"RFB 003.007\n");
    let bad: [&[u8]; 5] = [
        &[77],
        &[2, 0, 0xff, 0xff],
        &[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
        &[255; 4096],
    ];
    for message in bad {
        let mut c = Client::connect(&server, V8);
        c.stream.write_all(message).unwrap();
        assert!(matches!(c.stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    for greeting in [b"GET / HTTP/1", b"RFB 003.xyz\n", b"RFB 003.008 "] {
        let mut s = TcpStream::connect(("127.0.0.1", server.port().unwrap())).unwrap();
        s.write_all(greeting).unwrap();
        let mut answer = Vec::new();
        let _ = s.read_to_end(&mut answer);
        assert_eq!(answer, V8);
    }
    // A request beyond all edges is harmless.
    good.stream.write_all(&[3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
    good.ask(false);
    good.update();
    assert!(good.pixels == console.frame().pixels);
}

#[test]
fn random_accesses() {
    let (console, server) = server(picture(70, 40));
    let mut seed = 1u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) as u8
    };
    for _ in 0..12 {
        let mut c = Client::connect(&server, V8);
        let junk: Vec<u8> =
            (0..2000).map(|n| random() % if n % 3 == 0 { 7 } else { 255 }).collect();
        let _ = c.stream.write_all(&junk);
    }
    let mut c = Client::connect(&server, V8);
    c.ask(false);
    c.update();
    assert!(c.pixels == console.frame().pixels);
}

#[test]
fn servers_end_with_their_clients_and_leave_no_socket() {
    let path = std::env::temp_dir().join(format!("ring3-vnc-{}.sock", std::process::id()));
    let console = Arc::new(Painted::default());
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();
    // A socket that nobody listens on does not matter; a file does.
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::start(&address, "a guest", console.clone()).unwrap();
    assert!(Server::start(&address, "a guest", console.clone()).is_err());
    let mut c = Client::connect(&server, V8);
    assert_eq!(c.size, (1, 1));
    c.ask(false);
    c.update();
    assert_eq!(c.pixels, [0]);
    drop(server);
    assert!(matches!(c.stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    assert!(Server::start(&address, "a guest", console).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn addresses_are_as_qemu_writes_them() {
    let tcp = |host: &str, port| Ok(Address::Tcp(host.into(), port));
    assert_eq!("localhost:1".parse(), tcp("localhost", 5901));
    assert_eq!(":0".parse(), tcp("", 5900));
    assert_eq!("[::1]:12".parse(), tcp("::1", 5912));
    assert_eq!("unix:/x/y:1".parse(), Ok(Address::Unix("/x/y:1".into())));
    for wrong in ["", "localhost", "localhost:", ":x", ":59636", "unix:", ":1,password=on"] {
        assert!(wrong.parse::<Address>().is_err(), "{wrong}");
    }
}
