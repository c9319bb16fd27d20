//! Files of guests that are made of packages: disks, CDs, root file systems.
//!
//! The tools are Debian's own (`mmdebstrap`, `mke2fs`, `xorriso`, `grub-mkimage`), called by name:
//! `cargo xtask guests` says which package has one that is missing.

use super::fetch;
use anyhow::{Context, bail};
use ring3::debian::{self, Cpio, Options};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a tool; what it prints is shown when it fails.
fn tool(name: &str, package: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let out = Command::new(name).args(arguments).stdin(Stdio::null()).output();
    let missing = || format!("cannot run {name}: apt-get install {package}");
    let out = out.with_context(missing)?;
    if !out.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&out.stderr).trim_end());
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path of the project is no UTF-8")
}

/// A folder beside `path` to make things in, empty.
fn workshop(path: &Path) -> anyhow::Result<PathBuf> {
    let folder = path.with_extension("work");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn guest() -> anyhow::Result<debian::Guest> {
    Ok(debian::linux_guest(&Options::default())?)
}

/// The kernel for virtual machines.
pub(super) fn kernel(path: &Path) -> anyhow::Result<()> {
    Ok(fs::write(path, guest()?.kernel)?)
}

/// busybox's root file system.
pub(super) fn initrd(path: &Path) -> anyhow::Result<()> {
    Ok(fs::write(path, guest()?.initrd)?)
}

/// The kernel for all machines.
pub(super) fn full_kernel(path: &Path) -> anyhow::Result<()> {
    const PACKAGES: &[&str] = &["linux-image-amd64"];
    Ok(fs::write(path, fetch("amd64", PACKAGES, &["boot/vmlinuz-"], "linux-image-amd64")?)?)
}

/// What the minimal system runs in place of an init.
const UP: &str = "#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
echo Debian $(cat /etc/debian_version), $(dpkg-query -W | wc -l) packages
perl -e 'print \"minbase is up\\n\"'
exec /bin/sh
";

/// Debian's minimal system in an ext4 file system of 1 GiB.
pub(super) fn minbase(path: &Path) -> anyhow::Result<()> {
    root_file_system(path, 1 << 30, &["--variant=minbase"], |tree| script(&tree.join("up"), UP))
}

/// Debian with systemd; root has no password.
pub(super) fn systemd(path: &Path) -> anyhow::Result<()> {
    const PACKAGES: &str = "--include=systemd-sysv,udev,dbus,python3-minimal,login,passwd";
    root_file_system(path, 2 << 30, &["--variant=minbase", PACKAGES], |tree| {
        let shadow = tree.join("etc/shadow");
        let text = fs::read_to_string(&shadow)?;
        let open = text.lines().map(|line| match line.strip_prefix("root:") {
            Some(rest) => format!("root:{}\n", &rest[rest.find(':').unwrap_or(0)..]),
            None => format!("{line}\n"),
        });
        Ok(fs::write(&shadow, open.collect::<String>())?)
    })
}

/// An ext4 file system of `len` bytes that `mmdebstrap` fills and `finish` finishes.
fn root_file_system(
    path: &Path,
    len: u64,
    arguments: &[&str],
    finish: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let folder = workshop(path)?;
    let root = folder.join("root.tar");
    let name = codename()?;
    let rest = ["--quiet", &name, text(&root)?];
    tool("mmdebstrap", "mmdebstrap", &[arguments, &rest].concat())?;
    let tree = folder.join("root");
    fs::create_dir(&tree)?;
    tool("tar", "tar", &["-C", text(&tree)?, "-xf", text(&root)?, "--exclude=./dev/*"])?;
    finish(&tree)?;
    fs::File::create(path)?.set_len(len)?;
    tool("mke2fs", "e2fsprogs", &["-q", "-F", "-t", "ext4", "-d", text(&tree)?, text(path)?])?;
    Ok(fs::remove_dir_all(folder)?)
}

/// The name of this host's release, whose packages its mirror has.
fn codename() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let name = release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
}

fn script(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// An init that loads modules in this order and goes on from the disk that the kernel's command
/// line names.
fn module_init(modules: &[&str]) -> String {
    let mut init = String::from(
        "#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
",
    );
    for name in modules {
        init += &format!("$b insmod /{name}.ko\n");
    }
    init + "n=0
while [ ! -b $disk ] && [ $n -lt 100 ]; do $b sleep 0.1; n=$((n+1)); done
$b mount -t ext4 $disk /mnt && exec $b switch_root /mnt /up
exec $b sh
"
}

/// The modules that the file of another names as what it needs.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let at = module.windows(FIELD.len()).position(|w| w == FIELD);
    let rest = at.map_or(&[][..], |at| &module[at + FIELD.len()..]);
    let field = rest.split(|&b| b == 0).next().unwrap_or(&[]);
    let names = String::from_utf8_lossy(field).into_owned();
    names.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

/// All files of a kernel's modules below a folder, by the name that others know them by.
fn modules_below(folder: &Path, all: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            modules_below(&path, all)?;
        } else if path.extension().is_some_and(|e| e == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            all.insert(name, path);
        }
    }
    Ok(())
}

/// Adds a module behind those that it needs. What is no file is built in.
fn load(
    name: &str,
    all: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> anyhow::Result<()> {
    let Some(path) = all.get(name).filter(|_| order.iter().all(|(n, _)| n != name)) else {
        return Ok(());
    };
    let bytes = fs::read(path)?;
    for other in needs(&bytes) {
        load(&other, all, order)?;
    }
    order.push((name.to_owned(), bytes));
    Ok(())
}

/// An initial RAM disk with busybox, and modules of a kernel's package with what they need.
fn module_initrd(path: &Path, package: &str, modules: &[&str]) -> anyhow::Result<()> {
    let folder = workshop(path)?;
    let deb = download(&folder, package)?;
    tool("dpkg-deb", "dpkg", &["-x", text(&deb)?, text(&folder.join("x"))?])?;
    let mut all = BTreeMap::new();
    modules_below(&folder.join("x/lib/modules"), &mut all)?;
    let mut order = Vec::new();
    modules.iter().try_for_each(|name| load(name, &all, &mut order))?;
    let mut cpio = Cpio::default();
    for directory in ["bin", "dev", "mnt"] {
        cpio.dir(directory, 0o755);
    }
    cpio.file("bin/busybox", 0o755, &debian::busybox()?);
    for (name, bytes) in &order {
        cpio.file(&format!("{name}.ko"), 0o644, bytes);
    }
    let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
    cpio.file("init", 0o755, module_init(&names).as_bytes());
    fs::write(path, cpio.finish())?;
    Ok(fs::remove_dir_all(folder)?)
}

/// Downloads the package that `meta` depends on (a kernel's image), or `meta` itself.
fn download(folder: &Path, meta: &str) -> anyhow::Result<PathBuf> {
    let out = Command::new("apt-cache").args(["depends", "--important", meta]).output()?;
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    let real = list.lines().find_map(|l| l.trim().strip_prefix("Depends: linux-image-"));
    let real = real.map_or(meta.to_owned(), |name| format!("linux-image-{name}"));
    let out = Command::new("apt-get").args(["download", &real]).current_dir(folder).output()?;
    if !out.status.success() {
        bail!("cannot download {real}: {}", String::from_utf8_lossy(&out.stderr).trim_end());
    }
    let found = fs::read_dir(folder)?.filter_map(Result::ok).map(|e| e.path());
    found.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb")).context("no package")
}

/// For a disk on virtio-blk.
pub(super) fn virtio_initrd(path: &Path) -> anyhow::Result<()> {
    module_initrd(path, "linux-image-cloud-amd64", &["virtio_pci", "virtio_blk", "ext4"])
}

/// For a disk on IDE.
pub(super) fn ide_initrd(path: &Path) -> anyhow::Result<()> {
    // ext4 asks for its checksums by name, when it mounts.
    let modules = ["ata_piix", "sd_mod", "crc32c_generic", "ext4"];
    module_initrd(path, "linux-image-amd64", &modules)
}

/// Xen, unpacked.
pub(super) fn xen(path: &Path) -> anyhow::Result<()> {
    const PACKAGES: &[&str] = &["xen-hypervisor-4.17-amd64"];
    let packed = fetch("amd64", PACKAGES, &["boot/xen-4.17-amd64.gz"], "xen-hypervisor")?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
    Ok(fs::write(path, bytes)?)
}

const CONSOLE: &str = "console=ttyS0";

/// A CD with isolinux, a kernel and busybox.
pub(super) fn isolinux(path: &Path) -> anyhow::Result<()> {
    const ISOLINUX: &[&str] = &["isolinux"];
    const LDLINUX: &[&str] = &["syslinux-common"];
    let folder = workshop(path)?;
    let loader = fetch("all", ISOLINUX, &["usr/lib/ISOLINUX/isolinux.bin"], "isolinux")?;
    let module =
        fetch("all", LDLINUX, &["usr/lib/syslinux/modules/bios/ldlinux.c32"], "ldlinux.c32")?;
    let guest = guest()?;
    let config = format!(
        "DEFAULT linux\nPROMPT 0\nLABEL linux\nKERNEL /vmlinuz\nAPPEND initrd=/initrd {CONSOLE}\n"
    );
    for (name, bytes) in [
        ("isolinux.bin", &loader[..]),
        ("ldlinux.c32", &module),
        ("isolinux.cfg", config.as_bytes()),
        ("vmlinuz", &guest.kernel),
        ("initrd", &guest.initrd),
    ] {
        fs::write(folder.join(name), bytes)?;
    }
    let arguments = "-as mkisofs -quiet -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
                     -boot-info-table -o";
    let mut arguments: Vec<&str> = arguments.split(' ').filter(|w| !w.is_empty()).collect();
    arguments.extend([text(path)?, text(&folder)?]);
    tool("xorriso", "xorriso", &arguments)?;
    Ok(fs::remove_dir_all(folder)?)
}

/// A disk with a partition table, GRUB before the first partition, and an ext2 file system with a
/// kernel and busybox.
pub(super) fn grub_disk(path: &Path) -> anyhow::Result<()> {
    const FIRST: u64 = 2048;
    const SECTORS: u64 = 96 << 11;
    let folder = workshop(path)?;
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    let guest = guest()?;
    fs::write(tree.join("vmlinuz"), &guest.kernel)?;
    fs::write(tree.join("initrd"), &guest.initrd)?;
    let config = format!(
        "insmod part_msdos\ninsmod ext2\nset root=(hd0,msdos1)\nlinux /vmlinuz {CONSOLE}\n\
         initrd /initrd\nboot\n"
    );
    let script = folder.join("grub.cfg");
    fs::write(&script, config)?;
    let core = folder.join("core.img");
    let modules = "biosdisk part_msdos ext2 linux boot";
    let mut arguments = vec!["-O", "i386-pc", "-p", "/", "-c", text(&script)?, "-o", text(&core)?];
    arguments.extend(modules.split(' '));
    tool("grub-mkimage", "grub-common grub-pc-bin", &arguments)?;
    let boot = fs::read("/usr/lib/grub/i386-pc/boot.img")
        .context("cannot read GRUB's boot.img: apt-get install grub-pc-bin")?;
    let part = folder.join("part.img");
    fs::File::create(&part)?.set_len(SECTORS * 512)?;
    tool("mke2fs", "e2fsprogs", &["-q", "-F", "-t", "ext2", "-d", text(&tree)?, text(&part)?])?;

    let mut disk = fs::File::create(path)?;
    let core = fs::read(core)?;
    if core.len() as u64 > (FIRST - 1) * 512 {
        bail!("GRUB's core image of {} bytes does not fit before the partition", core.len());
    }
    let mut mbr = [0; 512];
    mbr[..440].copy_from_slice(&boot[..440]);
    // One partition: bootable, kind Linux, CHS unused, first sector and length.
    mbr[446..454].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&(FIRST as u32).to_le_bytes());
    mbr[458..462].copy_from_slice(&(SECTORS as u32).to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    // boot.img loads the sector at 5CH, whose own list (its last 12 bytes) leads to the rest.
    mbr[0x5c..0x64].copy_from_slice(&1_u64.to_le_bytes());
    disk.write_all(&mbr)?;
    let mut core = core;
    core[500..508].copy_from_slice(&2_u64.to_le_bytes());
    disk.write_all(&core)?;
    disk.seek(SeekFrom::Start(FIRST * 512))?;
    std::io::copy(&mut fs::File::open(part)?, &mut disk)?;
    Ok(fs::remove_dir_all(folder)?)
}
