//! Handler of SIGBUS, which a mapped file raises when it is truncated by another process. It prints the file's name and
//! ends the process with the exit code of a failing disk.

use crate::common_args::LogFormat;

/// Installs the handler, on systems that list the mappings of a process.
pub(crate) fn install(format: LogFormat) {
    #[cfg(target_os = "linux")]
    linux::install(format == LogFormat::Json);
    #[cfg(not(target_os = "linux"))]
    let _ = format;
}

/// Nothing below allocates or locks: a signal may arrive at any moment, even during an allocation.
#[cfg(target_os = "linux")]
mod linux {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::exit::ExitStatus;

    static JSON_LOGS: AtomicBool = AtomicBool::new(false);

    const PROBLEM: &[u8] = b": the file was cut short while it was being read";
    const HELP: &[u8] = b"restore the file, and run the same command again";
    /// Maximum length of a line of `/proc/self/maps`: a path and the numbers before it.
    const MAX_LINE_BYTES: usize = 4096 + 256;

    pub(super) fn install(json_logs: bool) {
        JSON_LOGS.store(json_logs, Ordering::Relaxed);
        #[expect(unsafe_code, reason = "a signal handler has no safe interface")]
        // SAFETY: the structure is plain numbers, all of which may be zero, and the handler has the signature that
        // SA_SIGINFO asks for. It calls only what may be called in handlers.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as extern "C" fn(_, _, _) as usize;
            // With SA_RESETHAND a second signal ends the process, so the handler may return.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        #[expect(unsafe_code, reason = "the system says where the access was")]
        // SAFETY: with SA_SIGINFO the system passes a structure, which has an address for this signal.
        let address = unsafe { (*info).si_addr() } as usize;
        // An address outside of any file is not reported: the access is repeated and ends the process.
        for_each_mapping(|line| {
            if let Some(path) = mapped_path(line, address) {
                report(path);
                exit();
            }
        });
    }

    /// Calls `on_line` with each line of `/proc/self/maps`.
    fn for_each_mapping(mut on_line: impl FnMut(&[u8])) {
        let (mut buffer, mut filled) = ([0u8; MAX_LINE_BYTES], 0);
        let Some(file) = open(c"/proc/self/maps") else { return };
        loop {
            let count = read(file, &mut buffer[filled..]);
            if count == 0 {
                return;
            }
            filled += count;
            while let Some(end) = buffer[..filled].iter().position(|&byte| byte == b'\n') {
                on_line(&buffer[..end]);
                buffer.copy_within(end + 1..filled, 0);
                filled -= end + 1;
            }
            // A longer line is dropped.
            filled %= MAX_LINE_BYTES;
        }
    }

    /// Path of a mapping such as `7f00-7f10 r--s 00000000 08:01 12   /data/file`, if `address` is in it.
    pub(super) fn mapped_path(line: &[u8], address: usize) -> Option<&[u8]> {
        let (range, rest) = split_at_byte(line, b' ')?;
        let (from, to) = split_at_byte(range, b'-')?;
        let inside = parse_hex(from)? <= address && address < parse_hex(to)?;
        let path = rest.iter().position(|&byte| byte == b'/').map(|at| &rest[at..]);
        path.filter(|_| inside)
    }

    fn split_at_byte(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
        let index = text.iter().position(|&byte| byte == at)?;
        Some((&text[..index], &text[index + 1..]))
    }

    fn parse_hex(digits: &[u8]) -> Option<usize> {
        let digit = |value: usize, &byte: &u8| Some(value << 4 | (byte as char).to_digit(16)? as usize);
        digits.iter().try_fold(0, digit)
    }

    fn report(path: &[u8]) {
        if JSON_LOGS.load(Ordering::Relaxed) {
            write(b"{\"level\":\"error\",\"exit_code\":4,\"message\":\"");
            path.iter().for_each(|&byte| match byte {
                b'"' | b'\\' => write(&[b'\\', byte]),
                0..0x20 => write(b"?"),
                _ => write(&[byte]),
            });
            [PROBLEM, b"\",\"causes\":[],\"help\":\"", HELP, b"\"}\n"].into_iter().for_each(write);
        } else {
            [b"error: ", path, PROBLEM, b"\nhelp: ", HELP, b"\n"].into_iter().for_each(write);
        }
    }

    #[expect(unsafe_code, reason = "what may be called in a signal handler")]
    fn open(path: &std::ffi::CStr) -> Option<libc::c_int> {
        // SAFETY: the path ends with a zero byte.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        (file >= 0).then_some(file)
    }

    #[expect(unsafe_code, reason = "what may be called in a signal handler")]
    fn read(file: libc::c_int, buffer: &mut [u8]) -> usize {
        // SAFETY: the buffer has as many bytes as are said.
        let count = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
        usize::try_from(count).unwrap_or(0)
    }

    #[expect(unsafe_code, reason = "what may be called in a signal handler")]
    fn write(bytes: &[u8]) {
        // SAFETY: there are as many bytes as are said.
        let count = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        // A failure has no one left to be reported to.
        let _ = count;
    }

    #[expect(unsafe_code, reason = "what may be called in a signal handler")]
    fn exit() -> ! {
        // SAFETY: it ends the process at once.
        unsafe { libc::_exit(ExitStatus::System as libc::c_int) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_file_of_an_address_is_found() {
            let line = b"7f0000001000-7f0000003000 r--s 00000000 08:01 42    /data/a file.parquet";
            assert_eq!(mapped_path(line, 0x7f00_0000_1000), Some(&b"/data/a file.parquet"[..]));
            assert_eq!(mapped_path(line, 0x7f00_0000_3000), None);
            assert_eq!(
                mapped_path(b"7f0000001000-7f0000003000 rw-p 00000000 00:00 0 ", 0x7f00_0000_1000),
                None
            );
            assert_eq!(mapped_path(b"", 0), None);
        }

        #[test]
        fn this_program_is_in_the_list() {
            let (address, mut found) = (the_file_of_an_address_is_found as fn() as usize, None);
            for_each_mapping(|line| found = found.take().or(mapped_path(line, address).map(<[u8]>::to_vec)));
            let own = std::env::current_exe().expect("known").display().to_string();
            assert_eq!(found.map(|path| String::from_utf8_lossy(&path).into_owned()), Some(own));
        }
    }
}
