//! HPACK against the examples of its RFC, another implementation, its abuse, and coming late.

use fluke_hpack::Encoder;
use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap();
    hex.chunks(2)
        .map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap())
        .collect()
}

/// Fields as lines, `?` for what is not known.
fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<String, Broken> {
    let mut lines = Vec::new();
    let text = |text: Option<&[u8]>| text.map_or("?".into(), |text| String::from_utf8_lossy(text).into_owned());
    decoder.decode(block, |field| {
        lines.push(format!("{}: {}", text(field.name), text(field.value)));
    })?;
    Ok(lines.join("\n"))
}

/// The blocks of one connection, their fields, and the size of the table after each (RFC 7541, appendix C).
fn check(size: Option<usize>, blocks: &[(&str, &str, usize)]) {
    let mut decoder = Decoder::new();
    if let Some(size) = size {
        decoder.table.resize(size);
    }
    for (block, expected, size) in blocks {
        let expected = expected.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        assert_eq!(fields(&mut decoder, &bytes(block)).unwrap(), expected);
        assert_eq!(decoder.table.size(), *size);
    }
}

const REQUESTS: [&str; 3] = [
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com",
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache",
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value",
];

const RESPONSES: [&str; 3] = [
    ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com",
    ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com",
    ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n\
     content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
];

#[test]
fn appendix_c1_integers() {
    let check = |hex: &str, prefix, expected| assert_eq!(integer(&mut &bytes(hex)[..], prefix), expected, "{hex}");
    check("0a", 5, Ok(10));
    check("1f9a0a", 5, Ok(1337));
    check("2a", 8, Ok(42));
    check("1f", 5, Err(Broken));
    check("1fffffffff0f", 5, Err(Broken));
    check("1f8080808080808080", 5, Err(Broken));
}

#[test]
fn appendix_c2_fields() {
    check(
        None,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header",
            55,
        )],
    );
    check(
        None,
        &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", 0)],
    );
    check(
        None,
        &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", 0)],
    );
    check(None, &[("82", ":method: GET", 0)]);
}

#[test]
fn appendix_c3_requests() {
    check(
        None,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                REQUESTS[2],
                164,
            ),
        ],
    );
}

#[test]
fn appendix_c4_requests_in_huffman_code() {
    check(
        None,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                REQUESTS[2],
                164,
            ),
        ],
    );
}

#[test]
fn appendix_c5_responses_with_eviction() {
    check(
        Some(256),
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                RESPONSES[0],
                222,
            ),
            ("4803 3330 37c1 c0bf", RESPONSES[1], 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                RESPONSES[2],
                215,
            ),
        ],
    );
}

#[test]
fn appendix_c6_responses_in_huffman_code() {
    check(
        Some(256),
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
                222,
            ),
            ("4883 640e ffc1 c0bf", RESPONSES[1], 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSES[2],
                215,
            ),
        ],
    );
}

#[test]
fn what_breaks_the_rules() {
    // Index 0, a length beyond the block, a string that ends in the middle, an integer without end.
    for block in ["80", "0005 61", "4001", "ff ffff ffff ff7f", "00 81ff 0161 0000"] {
        assert_eq!(fields(&mut Decoder::new(), &bytes(block)), Err(Broken), "{block}");
    }
}

#[test]
fn who_comes_late_knows_what_came_since() {
    let mut encoder = Encoder::new();
    let block = |encoder: &mut Encoder<'_>, list: &[(&str, &str)]| {
        encoder.encode(list.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    };
    block(
        &mut encoder,
        &[(":method", "POST"), ("accept", "*/*"), ("mcp-session-id", "abc")],
    );
    let mut late = Decoder::new();
    late.forget();
    let again = block(
        &mut encoder,
        &[
            (":method", "POST"),
            ("accept", "*/*"),
            ("mcp-session-id", "def"),
            ("x", "y"),
        ],
    );
    assert_eq!(
        fields(&mut late, &again).unwrap(),
        ":method: POST\naccept: */*\n?: def\nx: y"
    );
    let third = block(
        &mut encoder,
        &[("accept", "*/*"), ("mcp-session-id", "def"), ("x", "y")],
    );
    assert_eq!(fields(&mut late, &third).unwrap(), "accept: */*\n?: def\nx: y");
}

#[test]
fn a_table_that_is_named_again_and_again_is_bounded() {
    let long = vec![b'v'; 4000];
    let mut decoder = Decoder::new();
    let entry = [bytes("40 0161 7fa11e"), long].concat();
    let mut block = entry;
    block.extend(std::iter::repeat_n(0xbe, 60_000));
    let mut taken = 0;
    decoder
        .decode(&block, |field| taken += field.value.unwrap().len())
        .unwrap();
    assert!(taken <= MAX_LIST && decoder.table.size() <= 4096);
    // The largest size that can be asked for does not make the table larger.
    decoder.decode(&bytes("3fe1ffff3f"), |_| ()).unwrap();
    for number in 0..10_000 {
        let name = format!("{number:05}");
        let literal = [&[0x40, 5], name.as_bytes(), &[5], name.as_bytes()].concat();
        decoder.decode(&literal, |_| ()).unwrap();
        assert!(decoder.table.size() <= 64 << 10);
    }
}

#[test]
fn a_long_name_is_not_copied_again_and_again() {
    let mut decoder = Decoder::new();
    decoder.table.resize(64 << 10);
    let mut block = [&bytes("40 7fa11e")[..], &[b'n'; 4000], &[0]].concat();
    block.extend([0x7e, 0].repeat(30_000));
    let mut known = 0;
    decoder
        .decode(&block, |field| known += usize::from(field.name.is_some()))
        .unwrap();
    assert_eq!(known, 1);
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::collection::vec(b' '..b'~', 0..40),
        proptest::sample::select(vec![
            b":path".to_vec(),
            b"content-type".to_vec(),
            b"accept".to_vec(),
            b"x".to_vec()
        ]),
    ]
}

proptest! {
    #[test]
    fn what_another_implementation_encodes(
        lists in proptest::collection::vec(proptest::collection::vec((any_text(), any_text()), 0..12), 1..12),
        sizes in proptest::collection::vec(proptest::option::of(0_usize..5000), 12),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let mut late = Decoder::new();
        late.forget();
        for (index, (list, size)) in lists.iter().zip(sizes).enumerate() {
            if let Some(size) = size {
                encoder.set_max_table_size(size);
            }
            let block = encoder.encode(list.iter().map(|(name, value)| (&name[..], &value[..])));
            let mut fields = Vec::new();
            decoder.decode(&block, |field| fields.push((field.name.unwrap().to_vec(), field.value.unwrap().to_vec()))).unwrap();
            prop_assert_eq!(&fields, list);
            if index > 0 {
                // Who comes late knows less, but nothing else.
                let mut known = list.iter();
                late.decode(&block, |field| {
                    let (name, value) = known.next().unwrap();
                    assert!(field.name.is_none_or(|known| known == name) && field.value.is_none_or(|known| known == value));
                }).unwrap();
            }
        }
    }

    #[test]
    fn any_block_at_all(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..10)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            if decoder.decode(&block, |_| ()).is_err() {
                decoder.forget();
            }
        }
    }
}

/// Blocks of Python's `hpack`; `generate.py` beside them says what is in the file.
const PYTHON_HPACK: &[u8] = include_bytes!("../../../../../tests/captures/hpack/python-hpack.bin");

fn fnv(text: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    text.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[test]
fn what_pythons_hpack_encodes() {
    let mut rest = PYTHON_HPACK;
    let mut number = |length: usize| {
        let bytes = rest.split_off(..length).unwrap();
        bytes.to_vec()
    };
    let mut lists = 0;
    for _ in 0..40 {
        let mut decoder = Decoder::new();
        let count = u16::from_be_bytes(number(2).try_into().unwrap());
        for _ in 0..count {
            let length = u16::from_be_bytes(number(2).try_into().unwrap());
            let block = number(length.into());
            let said = u64::from_be_bytes(number(8).try_into().unwrap());
            let mut text = Vec::new();
            let whole = decoder.decode(&block, |field| {
                text.extend_from_slice(&[field.name.unwrap(), b": ", field.value.unwrap(), b"\n"].concat());
            });
            assert_eq!(whole, Ok(()), "list {lists}");
            assert_eq!(fnv(&text), said, "list {lists}: {}", String::from_utf8_lossy(&text));
            lists += 1;
        }
    }
    assert_eq!(lists, 3000);
}
