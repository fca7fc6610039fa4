//! The TLS libraries: which of their functions take and give plain text, and what a file looks like that has them unseen.
//!
//! To add a library add a family: the symbols, and for each the program of `observer-ebpf/src/tls` that understands its
//! arguments.

/// A library and the libraries made from it, which have the same functions.
#[derive(Debug)]
pub(super) struct Family {
    /// The value of the label `library`.
    pub(super) library: &'static str,
    /// Where plain text passes.
    pub(super) functions: &'static [Function],
    /// Symbols that tell that a file is this library, where there is no function to attach to.
    pub(super) marks: &'static [&'static str],
}

/// A function to attach to.
#[derive(Debug)]
pub(super) struct Function {
    /// Its symbol; of a function in Rust its path, as the demangled symbol has it.
    pub(super) symbol: &'static str,
    /// Program for its entry.
    pub(super) program: &'static str,
    /// Whether [`RETURN`], or [`GO_RETURN`], belongs to its return.
    pub(super) returns: bool,
}

/// The program for the return of every function.
pub(super) const RETURN: &str = "tls_return";

/// Every program.
pub(super) const PROGRAMS: &[&str] = &[
    RETURN,
    "tls_send",
    "tls_send_length4",
    "tls_send_length5",
    "tls_send_chunks",
    "tls_receive",
    "tls_receive_length4",
    "tls_receive_payload",
    "tls_send_file",
    "tls_receive_file",
    "tls_receive_file_flags",
    END,
    END_STATE,
    GO_RETURN,
    GO_SEND,
    GO_RECEIVE,
    GO_SEND_RECORD,
    GO_RECEIVE_COPY,
    GO_END,
];

/// The programs for the function that ends a session, which is its first argument, or in rustls a value.
const END: &str = "tls_end";
pub(super) const END_STATE: &str = "tls_end_state";

/// The programs for Go's functions that move plain text.
pub(super) const GO_SEND: &str = "go_tls_send";
pub(super) const GO_RECEIVE: &str = "go_tls_receive";

/// The program for each return instruction of Go's functions, which take no probe on their return.
pub(super) const GO_RETURN: &str = "go_tls_return";

/// The program for calls of [`GO_WRITES_RECORD`], and for the call of [`GO_COPIES`] with what was read.
pub(super) const GO_SEND_RECORD: &str = "go_tls_send_record";
pub(super) const GO_RECEIVE_COPY: &str = "go_tls_receive_copy";

/// What Go's `Write` calls with plain text, and what its `Read` calls, which is wherever bytes are copied.
pub(super) const GO_WRITES_RECORD: &str = "crypto/tls.(*Conn).writeRecordLocked";
pub(super) const GO_COPIES: &str = "runtime.memmove";

/// The program for the function that ends a session of Go's.
const GO_END: &str = "go_tls_end";

/// Go's `crypto/tls`, whose functions are found in a table of Go's own and seldom in a symbol table.
pub(super) const GO: Family = Family {
    library: "go",
    functions: &[
        moves("crypto/tls.(*Conn).Write", GO_SEND),
        moves("crypto/tls.(*Conn).Read", GO_RECEIVE),
        ends("crypto/tls.(*Conn).Close", GO_END),
    ],
    marks: &[],
};

const fn moves(symbol: &'static str, program: &'static str) -> Function {
    Function {
        symbol,
        program,
        returns: true,
    }
}

const fn ends(symbol: &'static str, program: &'static str) -> Function {
    Function {
        symbol,
        program,
        returns: false,
    }
}

/// Every library that is known.
pub(super) const FAMILIES: &[Family] = &[
    // OpenSSL 1.1 and 3, and BoringSSL, AWS-LC, LibreSSL, which have a part of them.
    Family {
        library: "openssl",
        functions: &[
            moves("SSL_write", "tls_send"),
            moves("SSL_write_ex", "tls_send_length4"),
            moves("SSL_write_early_data", "tls_send_length4"),
            moves("SSL_write_ex2", "tls_send_length5"),
            moves("SSL_read", "tls_receive"),
            moves("SSL_read_ex", "tls_receive_length4"),
            moves("SSL_read_early_data", "tls_receive_length4"),
            ends("SSL_free", END),
        ],
        marks: &[],
    },
    Family {
        library: "gnutls",
        functions: &[
            moves("gnutls_record_send", "tls_send"),
            moves("gnutls_record_recv", "tls_receive"),
            ends("gnutls_deinit", END),
        ],
        marks: &[],
    },
    // 0.23, by either of Rust's manglings.
    Family {
        library: "rustls",
        functions: &[
            moves("rustls::common_state::CommonState::buffer_plaintext", "tls_send_chunks"),
            moves(
                "<rustls::common_state::CommonState>::buffer_plaintext",
                "tls_send_chunks",
            ),
            moves(
                "rustls::common_state::CommonState::take_received_plaintext",
                "tls_receive_payload",
            ),
            moves(
                "<rustls::common_state::CommonState>::take_received_plaintext",
                "tls_receive_payload",
            ),
            ends("core::ptr::drop_in_place<rustls::common_state::CommonState>", END_STATE),
            ends(
                "core::ptr::drop_in_place::<rustls::common_state::CommonState>",
                END_STATE,
            ),
        ],
        marks: &[],
    },
    // NSPR, by whose functions programs use NSS, too.
    Family {
        library: "nss",
        functions: &[
            moves("PR_Write", "tls_send_file"),
            moves("PR_Send", "tls_send_file"),
            moves("PR_Read", "tls_receive_file"),
            moves("PR_Recv", "tls_receive_file_flags"),
            ends("PR_Close", END),
        ],
        marks: &[],
    },
    // JSSE is compiled at run time.
    Family {
        library: "java",
        functions: &[],
        marks: &["JNI_CreateJavaVM"],
    },
];

/// What is in the symbol of every function above that is in Rust: those symbols are long and have hashes in them.
pub(super) const IN_RUST: &str = "CommonState";

/// Words in the read-only data of a program that has a library linked in without its symbols, and the library.
pub(super) const TELLTALES: &[(&[u8], &str)] = &[
    (b"crypto/tls.(*Conn).Write", "go"),
    (b"rustls-0.", "rustls"),
    (b"third_party/boringssl", "boringssl"),
    (b"ssl/tls_record.cc", "boringssl"),
    (b"ssl/record/rec_layer_s3.c", "openssl"),
];
