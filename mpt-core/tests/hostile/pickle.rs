//! `.bin` files: pickles that would run code, views outside their storage, and invalid archives.

use crate::sound::{self, Pickle, Tensor, View};
use crate::trial::Folder;

const FILE: &str = "pytorch_model.bin";

/// Storage `0`: four f32.
const STORAGE: [u8; 16] = [0; 16];

fn tensors() -> Vec<Tensor> {
    sound::tensors(&sound::config())
}

fn with(bytes: &[u8]) -> Folder {
    Folder::model().with(FILE, bytes)
}

fn of(pickle: &[u8]) -> Folder {
    with(&sound::archive(pickle, &[&STORAGE]))
}

fn view() -> View<'static> {
    View { storage: "FloatStorage", key: "0", len: 4, offset: 0, shape: &[2, 2], stride: &[2, 1] }
}

/// State dict with the tensor `a`.
fn a(view: View<'_>) -> Folder {
    of(&Pickle::dict().text("a").tensor(view).end())
}

#[test]
fn the_sound_file_is_read() {
    with(&sound::bin(&tensors())).open().expect("a sound file");
    a(view()).refused(&["transformer.wte.weight", "missing"]);
}

#[test]
fn names_that_run_code_are_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch.serialization", "load"),
        ("collections.abc", "OrderedDict"),
        ("torch", "FloatStorage.__reduce__"),
        ("", ""),
    ] {
        let shown = format!("the name `{module}.{name}`");
        let by_line =
            Pickle::dict().raw(format!("c{module}\n{name}\n").as_bytes()).text("ls").raw(b"\x85R").end();
        of(&by_line).refused(&[FILE, "byte ", &shown]);
        let by_stack = Pickle::dict().text(module).text(name).raw(b"\x93").text("ls").raw(b"\x85R").end();
        of(&by_stack).refused(&[FILE, "byte ", &shown]);
    }
}

#[test]
fn opcodes_that_make_objects_are_refused() {
    for opcodes in [
        &b"ios\nsystem\n"[..],                   // INST
        b"(ccollections\nOrderedDict\no",        // OBJ by a name
        b"ccollections\nOrderedDict\n)\x81",     // NEWOBJ
        b"ccollections\nOrderedDict\n)}\x92",    // NEWOBJ_EX
        b"\x82\x01",                             // EXT1
        b"Pos.system\n",                         // PERSID
        b"S'x'\n",                               // STRING
        b"B\xff\xff\xff\x7f",                    // BINBYTES
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", // BINBYTES8
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f", // BYTEARRAY8
        b"\x8b\xff\xff\xff\x7f",                 // LONG4
    ] {
        of(&Pickle::dict().raw(opcodes).end()).refused(&[FILE, "byte ", "opcode"]);
    }
    let build =
        Pickle::dict().raw(b"ccollections\nOrderedDict\n)R}").text("__class__").raw(b"cos\nsystem\nsb");
    of(&build.end()).refused(&["`os.system`"]);
}

#[test]
fn calls_take_what_they_are_made_for() {
    for (opcodes, found) in [
        (&b"ctorch._utils\n_rebuild_tensor_v2\n)R"[..], "a call of"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}R", "no tuple"),
        (b"ctorch._utils\n_rebuild_parameter\n)R", "a call of"),
        (b"ctorch\nFloatStorage\n)R", "a call of"),
        (b"K\x01)R", "no callable"),
        (b"(X\x07\0\0\0storageK\x01K\x01K\x01K\x01tQ", "no storage"),
        (b"K\x01Q", "no tuple"),
    ] {
        of(&Pickle::dict().raw(opcodes).end()).refused(&[FILE, "byte ", found]);
    }
}

/// CVE-2026-24747: items set on other values than dictionaries, and views larger than their storage.
#[test]
fn items_are_set_on_dictionaries_alone() {
    let tensor = |pickle: Pickle| pickle.tensor(view());
    for (pickle, found) in [
        (tensor(Pickle::dict()).raw(b"K\x00K\x01s"), "no dictionary"),
        (tensor(Pickle::dict()).raw(b"(K\x00K\x01u"), "no dictionary"),
        (tensor(Pickle::dict()).raw(b"K\x00a"), "no list"),
        (Pickle::dict().raw(b"ctorch\nFloatStorage\n(K\x00K\x01u"), "no dictionary"),
        (Pickle::dict().raw(b"}(K\x00u"), "no dictionary"),
    ] {
        of(&pickle.end()).refused(&[FILE, "byte ", found]);
    }
}

#[test]
fn a_view_must_lie_in_its_storage() {
    let outside = "elements outside its storage";
    for (view, found) in [
        (View { len: 5, ..view() }, outside),
        (View { len: i64::MAX, ..view() }, outside),
        (View { len: i64::MIN, ..view() }, outside),
        (View { len: -1, ..view() }, outside),
        (View { len: 3, ..view() }, outside),
        (View { offset: 1, ..view() }, outside),
        (View { offset: -1, ..view() }, outside),
        (View { offset: i64::MAX, ..view() }, outside),
        (View { storage: "DoubleStorage", ..view() }, outside),
        (View { shape: &[i64::MAX, i64::MAX], stride: &[i64::MAX, 1], ..view() }, outside),
        (View { shape: &[0, 1 << 40, 1 << 40], stride: &[0, 1 << 40, 1], ..view() }, outside),
        (View { shape: &[-2, -2], ..view() }, "an impossible shape"),
        (View { stride: &[-2, 1], ..view() }, "not contiguous"),
        (View { stride: &[0, 0], ..view() }, "not contiguous"),
        (View { stride: &[1, 2], ..view() }, "not contiguous"),
        (View { stride: &[1 << 62, 1], ..view() }, "not contiguous"),
        (View { stride: &[1], ..view() }, "not contiguous"),
        (View { key: "7", ..view() }, "the storage `7`"),
        (View { key: "../../etc/passwd", ..view() }, "the storage `../../etc/passwd`"),
        (View { key: "", ..view() }, "the storage ``"),
    ] {
        a(view).refused(&[FILE, "tensor `a`", found]);
    }
    a(View { shape: &[1; 17], stride: &[1; 17], ..view() }).refused(&[FILE, "a tuple of 17"]);
    a(View { shape: &[1; 9], stride: &[1; 9], ..view() }).refused(&[FILE, outside]);
}

#[test]
fn only_a_dictionary_of_tensors_is_taken() {
    let dict = Pickle::dict;
    for (pickle, found) in [
        (b"\x80\x02K\x01.".to_vec(), "another object"),
        (dict().raw(b"K\x01K\x02").end(), "a key that is no text"),
        (dict().text("a").raw(b"K\x02").end(), "tensor `a`: another object"),
        (dict().text("a").tensor(view()).text("a").tensor(view()).end(), "twice"),
        (dict().text(&"n".repeat(300)).tensor(view()).end(), "of 300 bytes"),
        (dict().text("a\u{1b}c").tensor(view()).end(), r"`a\u{1b}c`"),
        (dict().text(&"n".repeat(5000)).end(), "a text of 5000 bytes"),
        (dict().0, "the end of the pickle"),
        (b"\x80\x02\x95".to_vec(), "the end of the pickle"),
        (Vec::new(), "the end of the pickle"),
        (b"\x80\x02h\x07.".to_vec(), "memo 7"),
    ] {
        of(&pickle).refused(&[FILE, found]);
    }
    let long = [b"\x80\x02c".to_vec(), vec![b'm'; 1 << 20]].concat();
    of(&long).refused(&[FILE, "a name without an end"]);
}

#[test]
fn bombs_cost_little() {
    let repeat = |opcodes: &[u8], n: usize| [b"\x80\x02".to_vec(), opcodes.repeat(n), b".".to_vec()].concat();
    // tuples of tuples, memos of memos, groups in groups, empty dictionaries, recalled and called again
    for opcodes in [
        &b"N\x85\x94"[..],
        b"N\x94\x86",
        b"(",
        b"}q\x00h\x00",
        b")\x94h\x00",
        b"(t",
        b"(tN\x86b",
        b"(NNNNNNNNt",
    ] {
        assert!(of(&repeat(opcodes, 1 << 20)).open().is_err());
    }
    let doubling = Pickle::default().raw(b"\x80\x02N").raw(&b"q\x00h\x00\x86".repeat(200)).raw(b".");
    of(&doubling.0).refused(&[FILE, "another object"]);
    let shared = Pickle::dict().text("a").raw(b"q\x01").tensor(view()).raw(b"q\x02");
    of(&shared.raw(&b"h\x01h\x02".repeat(80_000)).end()).refused(&[FILE, "80001 tensors"]);
    let mut distinct = Pickle::dict().text("a").tensor(view()).raw(b"q\x02");
    for i in 0..60_000 {
        distinct = distinct.text(&i.to_string()).raw(b"h\x02");
    }
    of(&distinct.end()).refused(&["transformer.wte.weight", "missing"]);
}

/// Offset of the `n`th occurrence of a signature.
fn find(bytes: &[u8], signature: &[u8; 4], n: usize) -> usize {
    let mut places = bytes.windows(4).enumerate().filter(|(_, window)| window == signature).map(|(at, _)| at);
    places.nth(n).expect("the signature is there")
}

/// Valid archive with bytes replaced at `offset` from the `n`th occurrence of a signature.
fn patched(signature: &[u8; 4], n: usize, offset: usize, bytes: &[u8]) -> Folder {
    let mut file = sound::bin(&tensors());
    let at = find(&file, signature, n) + offset;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    with(&file)
}

const ENTRY: &[u8; 4] = b"PK\x01\x02";
const LOCAL: &[u8; 4] = b"PK\x03\x04";
const END: &[u8; 4] = b"PK\x05\x06";

#[test]
fn archives_are_what_their_directory_says() {
    let refused = |folder: Folder, found: &str| folder.refused(&[FILE, "byte ", found]);
    refused(patched(ENTRY, 1, 10, &[8, 0]), "compressed or encrypted");
    refused(patched(ENTRY, 1, 8, &[1, 0]), "compressed or encrypted");
    refused(patched(ENTRY, 1, 24, &[0xff; 4]), "of two sizes");
    refused(patched(ENTRY, 1, 20, &[0xf0; 8]), "beyond the end");
    refused(patched(ENTRY, 1, 42, &[0xfe; 4]), "beyond the end");
    refused(patched(ENTRY, 1, 42, &[1, 0, 0, 0]), "another signature");
    refused(patched(ENTRY, 1, 42, &[0, 0, 0, 0]), "overlap");
    refused(patched(ENTRY, 0, 28, &[0xff, 0xff]), "beyond the end");
    refused(patched(ENTRY, 0, 28, &[4, 0]), "");
    refused(patched(LOCAL, 1, 26, &[40, 0]), "overlap");
    refused(patched(LOCAL, 1, 26, &[0xff, 0xff]), "beyond the end");
    refused(patched(LOCAL, 1, 0, b"XXXX"), "another signature");
    refused(patched(END, 0, 10, &[1, 0]), "another number of members");
    refused(patched(END, 0, 10, &[200, 0]), "another signature");
    refused(patched(END, 0, 16, &[0xff; 4]), "beyond the end");
    refused(patched(END, 0, 16, &[0; 4]), "another signature");
    refused(patched(ENTRY, 2, 46, b"m/data/0"), "comes twice");
    let size = sound::bin(&tensors()).len() as u32 - 100;
    let growing = [size.to_le_bytes(), size.to_le_bytes()].concat();
    refused(patched(ENTRY, 1, 20, &growing), "beyond the end");
}

#[test]
fn sizes_of_64_bits_are_checked_too() {
    let sound = sound::bin(&tensors());
    let end = find(&sound, END, 0);
    let with_64 = |entries: u64, start: u64, at: u64| {
        let fields = [0u64, entries, entries, 0, start].map(u64::to_le_bytes).concat();
        let record = [&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 4], &fields].concat();
        let locator = [&b"PK\x06\x07"[..], &[0; 4], &at.to_le_bytes(), &[1, 0, 0, 0]].concat();
        with(&[&sound[..end], &record, &locator, &sound[end..]].concat())
    };
    let entries = u64::from(u16::from_le_bytes([sound[end + 10], sound[end + 11]]));
    let start = u64::from(u32::from_le_bytes(sound[end + 16..end + 20].try_into().unwrap()));
    with_64(entries, start, end as u64).open().expect("a sound file");
    with_64(u64::MAX, start, end as u64).refused(&[FILE, "members"]);
    with_64(1 << 16, start, end as u64).refused(&[FILE, "another signature"]);
    with_64(entries, u64::MAX, end as u64).refused(&[FILE, "beyond the end"]);
    with_64(entries, start, u64::MAX).refused(&[FILE, "beyond the end"]);
    with_64(entries, start, 0).refused(&[FILE, "another signature"]);
}

#[test]
fn members_are_looked_up_and_never_written() {
    let pickle = Pickle::dict().end();
    let members = |names: &[&str]| {
        let members: Vec<_> = names.iter().map(|name| ((*name).to_owned(), &pickle[..])).collect();
        with(&sound::zip(&members))
    };
    members(&["../../data.pkl"]).refused(&["transformer.wte.weight", "missing"]);
    members(&["/etc/passwd", "C:\\x", "m/data.pkl"]).refused(&["transformer.wte.weight", "missing"]);
    members(&["m/data.pkl", "n/data.pkl"]).refused(&[FILE, "`data.pkl`"]);
    members(&["data.pkl"]).refused(&[FILE, "`data.pkl`"]);
    members(&[]).refused(&[FILE, "`data.pkl`"]);
}

#[test]
fn files_that_are_no_archives_are_refused() {
    for bytes in [&b""[..], b"P", b"\x80\x02}.", b"\x7fELF"] {
        with(bytes).refused(&[FILE, "no zip archive"]);
    }
    with(b"PK").refused(&[FILE, "no end of a zip archive"]);
    with(b"PK\x05\x06").refused(&[FILE, "beyond the end"]);
    with(&b"PK\x05\x06".repeat(100_000)).refused(&[FILE]);
    let sound = sound::bin(&tensors());
    for len in (0..sound.len()).step_by(97) {
        with(&sound[..len]).refused(&[FILE]);
    }
}

#[test]
fn many_members_cost_little() {
    let names: Vec<_> = (0..60_000).map(|i| (format!("{i}"), &b""[..])).collect();
    with(&sound::zip(&names)).refused(&[FILE, "`data.pkl`"]);
}
