//! Images with random damage: they are refused, or answer each request with data or an error.

mod common;

use block::{Image, ImageDisk, Options};
use common::{Rng, Waited, qemu_img_ok};
use devices::disk::{Disk, Request};
use std::fs;
use tempfile::tempdir;

#[test]
fn damaged_images_harm_nobody() {
    let dir = tempdir().unwrap();
    let d = dir.path();
    let path = d.join("a.img");
    for options in ["cluster_size=4096", "cluster_size=512,refcount_bits=8", "compat=0.10"] {
        qemu_img_ok(d, &format!("create -f qcow2 -o {options} a.img 1M"));
        let mut disk = Waited::open(&path, &Options::default(), false);
        (0..16).for_each(|n| disk.write(n << 16, vec![n as u8; 1024]));
        drop(disk);
        let good = fs::read(&path).unwrap();
        let (mut rng, mut opened) = (Rng(77), 0);
        for _ in 0..150 {
            let mut bad = good.clone();
            for _ in 0..1 + rng.below(4) {
                // In the header, or in anything else: tables are most of it.
                let most = if rng.below(3) == 0 { 112 } else { bad.len() as u64 };
                let at = rng.below(most) as usize;
                bad[at] = [rng.next() as u8, 0, 0xff, 1, bad[at] ^ 0x80][rng.below(5) as usize];
            }
            bad.truncate(if rng.below(5) == 0 {
                rng.below(good.len() as u64) as usize
            } else {
                bad.len()
            });
            fs::write(&path, &bad).unwrap();
            let Ok(image) = Image::open(&path, &Options::default()) else { continue };
            opened += 1;
            let len = image.size();
            let mut disk = Waited::on(|wake| image.into_disk(wake).unwrap(), true);
            for n in 0..24 {
                let offset = rng.below(len.clamp(512, 1 << 20) / 512) * 512;
                let result = disk.serve(match rng.below(5) {
                    0 => Request::Write { offset, data: vec![n; 512] },
                    1 => Request::Discard { offset: offset & !0xffff, len: 0x1_0000 },
                    2 => Request::Flush,
                    _ => Request::Read { offset, len: 512 },
                });
                assert!(result.is_err() || result.is_ok_and(|d| [0, 512].contains(&d.len())));
            }
            let _: &ImageDisk = &disk.disk;
            assert_eq!(disk.disk.len(), len);
        }
        assert!((5..150).contains(&opened), "{opened} were opened with {options}");
    }
}
