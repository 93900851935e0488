//! What keeps user space from writing a map that a program of the kernel's writes: facts about BPF maps
//! that the loader's choice for `qm_view` stands on. Tier B: root, any kernel from 6.1; no sched_ext.
//!
//! A descriptor with `BPF_F_RDONLY` would be the natural thing to hand to an agent, and is no use: it
//! cannot be mapped at all, not even for reading (do_mmap clears VM_SHARED for a file that is not open for
//! writing, and bpf_map_mmap wants VM_SHARED). A frozen map (BPF_MAP_FREEZE) can be mapped for reading
//! with any descriptor, and be written with none; it cannot be frozen while a writable mapping exists.
#![allow(missing_docs)]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_FREEZE: libc::c_int = 22;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_RDONLY: u32 = 1 << 3;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const VALUE: usize = 4096;

/// bpf(2). `attr` is the part of `union bpf_attr` that the command reads.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<RawFd> {
    // SAFETY: attr is valid for its size, which the kernel is told.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    RawFd::try_from(ret).ok().filter(|ret| *ret >= 0).ok_or_else(Error::last_os_error)
}

/// A map of one page. `None`, and why on stderr, where maps cannot be made.
fn array() -> Option<OwnedFd> {
    // SAFETY: cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skip: BPF maps need root");
        return None;
    }
    // map_type, key_size, value_size, max_entries, map_flags
    let mut attr = [BPF_MAP_TYPE_ARRAY, 4, VALUE as u32, 1, BPF_F_MMAPABLE];
    match bpf(BPF_MAP_CREATE, &mut attr) {
        // SAFETY: a new descriptor.
        Ok(fd) => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            eprintln!("skip: root may not make BPF maps here ({error})");
            None
        }
        Err(error) => panic!("cannot make a map: {error}"),
    }
}

fn reopen_read_only(map: &OwnedFd) -> OwnedFd {
    // struct bpf_map_info begins with type and id.
    let mut info = [0u32; 2];
    let mut attr =
        [u64::from(map.as_raw_fd() as u32) | (size_of_val(&info) as u64) << 32, info.as_mut_ptr() as u64];
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).expect("the map's id");
    // map_id, next_id, open_flags
    let fd = bpf(BPF_MAP_GET_FD_BY_ID, &mut [info[1], 0, BPF_F_RDONLY]).expect("another descriptor");
    // SAFETY: a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn update(map: &OwnedFd, byte: u8) -> Result<()> {
    let (key, value) = (0u32, [byte; VALUE]);
    let mut attr = [map.as_raw_fd() as u64, std::ptr::from_ref(&key) as u64, value.as_ptr() as u64, 0];
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

fn freeze(map: &OwnedFd) -> Result<()> {
    bpf(BPF_MAP_FREEZE, &mut [map.as_raw_fd() as u32]).map(drop)
}

/// A mapping; at `over` if there is one, in its place.
fn mmap(map: &OwnedFd, prot: libc::c_int, over: Option<*mut u8>) -> Result<*mut u8> {
    let (at, fixed) = over.map_or((std::ptr::null_mut(), 0), |at| (at, libc::MAP_FIXED));
    // SAFETY: a place of the kernel's choice, or that of a mapping of this test.
    let got = unsafe { libc::mmap(at.cast(), VALUE, prot, libc::MAP_SHARED | fixed, map.as_raw_fd(), 0) };
    if got == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(got.cast()) }
}

const READ: libc::c_int = libc::PROT_READ;
const WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

fn code<T>(result: Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_read_only_descriptor_cannot_write_and_cannot_be_mapped_either() {
    let Some(map) = array() else { return };
    let readable = reopen_read_only(&map);
    assert_eq!(code(update(&readable, 9)), Some(libc::EPERM));
    assert!(mmap(&readable, WRITE, None).is_err());
    // The day this succeeds, the loader can hand out such a descriptor of `qm_view`.
    assert_eq!(code(mmap(&readable, READ, None)), Some(libc::EINVAL));
}

#[test]
fn a_frozen_map_is_mapped_for_reading_and_written_by_nobody() {
    let Some(map) = array() else { return };
    update(&map, 7).expect("before, it can be written");
    let writable = mmap(&map, WRITE, None).expect("and be mapped so, as libbpf does");
    assert_eq!(code(freeze(&map)), Some(libc::EBUSY), "not while it is mapped for writing");
    // What the loader would do to libbpf's mapping.
    assert_eq!(mmap(&map, READ, Some(writable)).expect("mapped again"), writable);
    freeze(&map).expect("frozen");

    assert_eq!(code(update(&map, 8)), Some(libc::EPERM));
    assert_eq!(code(mmap(&map, WRITE, None)), Some(libc::EPERM));
    let seen = mmap(&map, READ, None).expect("mapped for reading");
    // SAFETY: inside the mapping.
    assert_eq!(unsafe { seen.add(5).read_volatile() }, 7);
    // SAFETY: a mapping of ours, and nothing is written if the kernel agrees.
    let again = unsafe { libc::mprotect(seen.cast(), VALUE, WRITE) };
    assert_eq!(again, -1, "a mapping for reading stays one");
}
