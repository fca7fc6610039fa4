//! Where the running kernel keeps its fields: read from its BTF, nothing known at compile time.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use observer_common::config::{ABSENT, Layout};

/// Where the kernel shows its type information (`CONFIG_DEBUG_INFO_BTF`).
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What is to be known of the running kernel.
pub struct Kernel {
    layout: Layout,
    /// Numbers of arguments of functions by name.
    functions: HashMap<String, usize>,
}

/// Types of the running kernel: tens of megabytes, which are dropped as soon as they are read.
struct Types {
    all: TypeInformation,
    /// Ids of structs by name.
    structs: HashMap<String, u32>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

struct Memory(Vec<u8>);

impl Readable for Memory {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end)) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(btfparse::Error::new(btfparse::ErrorKind::IOError, "past the end")),
        }
    }
}

impl Kernel {
    /// Reads the running kernel's type information.
    ///
    /// # Errors
    /// When the kernel has none (it was built without `CONFIG_DEBUG_INFO_BTF`), or lacks a field that every kernel from 5.10 to 7.3
    /// has, naming it.
    pub fn running() -> Result<Self> {
        let bytes = std::fs::read(BTF).with_context(|| {
            format!(
                "this kernel shows no type information at {BTF}; a kernel built with CONFIG_DEBUG_INFO_BTF is needed"
            )
        })?;
        let all = TypeInformation::new(&Memory(bytes))
            .map_err(|error| anyhow::anyhow!("the kernel's type information cannot be read: {}", error.message()))?;
        let (mut structs, mut functions) = (HashMap::new(), HashMap::new());
        for (id, kind) in all.get() {
            match kind {
                TypeVariant::Struct(found) => {
                    structs.entry(found.name().clone().unwrap_or_default()).or_insert(*id);
                }
                TypeVariant::Func(func) => {
                    if let Some(TypeVariant::FuncProto(proto)) = all.from_id(*func.prototype_tid()) {
                        functions.insert(func.name().clone().unwrap_or_default(), proto.parameter_list().len());
                    }
                }
                _ => {}
            }
        }
        let layout = Types { all, structs }.layout()?;
        Ok(Self { layout, functions })
    }

    /// Every offset that the kernel side needs.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of arguments of a kernel function; `None` when the kernel does not have it.
    #[must_use]
    pub fn arguments(&self, function: &str) -> Option<usize> {
        self.functions.get(function).copied()
    }

    /// The first of `names` that is a function of the kernel.
    #[must_use]
    pub fn first_function<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.arguments(name).is_some())
    }
}

impl Types {
    /// Offset in bytes of `path` (fields joined by dots) in the struct `name`.
    fn field(&self, name: &str, path: &str) -> Option<u32> {
        let id = *self.structs.get(name)?;
        match self.all.offset_of(id, path).ok()?.1 {
            Offset::ByteOffset(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Size of a struct in bytes.
    fn size(&self, name: &str) -> Option<u32> {
        match self.all.from_id(*self.structs.get(name)?)? {
            TypeVariant::Struct(found) => u32::try_from(*found.size()).ok(),
            _ => None,
        }
    }

    /// Value of an enumerator of the enum `name`.
    fn enumerator(&self, name: &str, value: &str) -> Option<u32> {
        self.all.get().values().find_map(|kind| match kind {
            TypeVariant::Enum(found) if found.name().as_deref() == Some(name) => found
                .named_value_list()
                .iter()
                .find(|item| item.name == value)
                .and_then(|item| match item.value {
                    btfparse::Integer32Value::Signed(number) => u32::try_from(number).ok(),
                    btfparse::Integer32Value::Unsigned(number) => Some(number),
                }),
            _ => None,
        })
    }

    #[expect(clippy::too_many_lines, reason = "a line for each field")]
    fn layout(&self) -> Result<Layout> {
        let need = |name: &str, path: &str| {
            self.field(name, path).with_context(|| {
                format!("this kernel has no field {path} in struct {name}; this version knows kernels 5.10 to 7.3")
            })
        };
        let first = |name: &str, paths: &[&str]| {
            paths.iter().find_map(|path| self.field(name, path)).with_context(|| {
                format!("this kernel has none of the fields {paths:?} in struct {name}; this version knows kernels 5.10 to 7.3")
            })
        };
        let (iter_kind, iter_kind_mask) = match (self.field("iov_iter", "iter_type"), self.field("iov_iter", "type")) {
            (Some(offset), _) => (offset, 0xff),
            // Before 5.14 the lowest bit of `type` is the direction.
            (None, Some(offset)) => (offset, 0xfe),
            (None, None) => bail!("this kernel has no kind in struct iov_iter; this version knows kernels 5.10 to 7.3"),
        };
        let (file_references, file_last_reference) = match self.field("file", "f_ref") {
            Some(offset) => (offset, 0),
            None => (need("file", "f_count")?, 1),
        };
        if need("sk_buff", "next")? != need("sk_buff_head", "next")? {
            bail!("this kernel's struct sk_buff_head is laid out in a way that this version does not know");
        }
        Ok(Layout {
            task_files: need("task_struct", "files")?,
            task_pid: need("task_struct", "pid")?,
            task_tgid: need("task_struct", "tgid")?,
            task_signal: need("task_struct", "signal")?,
            task_mm: need("task_struct", "mm")?,
            task_exit_code: need("task_struct", "exit_code")?,
            task_status: self.field("task_struct", "thread_info.status").unwrap_or(ABSENT),
            signal_live: need("signal_struct", "live")?,
            signal_group_exit_code: need("signal_struct", "group_exit_code")?,
            files_fdt: need("files_struct", "fdt")?,
            fdtable_max_fds: need("fdtable", "max_fds")?,
            fdtable_files: need("fdtable", "fd")?,
            file_inode: need("file", "f_inode")?,
            file_private_data: need("file", "private_data")?,
            file_mode: need("file", "f_mode")?,
            file_references,
            file_last_reference,
            inode_mode: need("inode", "i_mode")?,
            inode_number: need("inode", "i_ino")?,
            inode_pipe: need("inode", "i_pipe")?,
            kiocb_file: need("kiocb", "ki_filp")?,
            pipe_readers: need("pipe_inode_info", "readers")?,
            pipe_writers: need("pipe_inode_info", "writers")?,
            pipe_head: need("pipe_inode_info", "head")?,
            pipe_tail: need("pipe_inode_info", "tail")?,
            pipe_ring_size: need("pipe_inode_info", "ring_size")?,
            pipe_buffers: need("pipe_inode_info", "bufs")?,
            pipe_buffer_size: self
                .size("pipe_buffer")
                .context("this kernel has no struct pipe_buffer")?,
            pipe_buffer_length: need("pipe_buffer", "len")?,
            socket_sk: need("socket", "sk")?,
            socket_inode: need("socket_alloc", "vfs_inode")?,
            socket_file: need("socket", "file")?,
            sock_socket: need("sock", "sk_socket")?,
            sock_type: need("sock", "sk_type")?,
            sock_protocol: need("sock", "sk_protocol")?,
            sock_family: need("sock_common", "skc_family")?,
            sock_local_port: need("sock_common", "skc_num")?,
            sock_remote_port: need("sock_common", "skc_dport")?,
            sock_local_v4: need("sock_common", "skc_rcv_saddr")?,
            sock_remote_v4: need("sock_common", "skc_daddr")?,
            sock_local_v6: self.field("sock_common", "skc_v6_rcv_saddr").unwrap_or(ABSENT),
            sock_remote_v6: self.field("sock_common", "skc_v6_daddr").unwrap_or(ABSENT),
            sock_net: need("sock_common", "skc_net.net")?,
            net_inode: need("net", "ns.inum")?,
            unix_peer: need("unix_sock", "peer")?,
            sock_receive_queue: need("sock", "sk_receive_queue")?,
            skb_next: need("sk_buff", "next")?,
            skb_length: need("sk_buff", "len")?,
            skb_control: need("sk_buff", "cb")?,
            unix_consumed: need("unix_skb_parms", "consumed")?,
            tcp_write_seq: need("tcp_sock", "write_seq")?,
            tcp_copied_seq: need("tcp_sock", "copied_seq")?,
            tcp_snd_una: need("tcp_sock", "snd_una")?,
            tcp_rcv_nxt: need("tcp_sock", "rcv_nxt")?,
            tcp_bytes_acked: need("tcp_sock", "bytes_acked")?,
            tcp_bytes_received: need("tcp_sock", "bytes_received")?,
            msghdr_iter: need("msghdr", "msg_iter")?,
            iter_kind,
            iter_kind_mask,
            iter_iovec: self
                .enumerator("iter_type", "ITER_IOVEC")
                .context("this kernel has no ITER_IOVEC")?,
            iter_ubuf: self.enumerator("iter_type", "ITER_UBUF").unwrap_or(ABSENT),
            iter_base: first("iov_iter", &["__iov", "iov"])?,
            iter_segments: need("iov_iter", "nr_segs")?,
            iter_offset: need("iov_iter", "iov_offset")?,
            iter_count: need("iov_iter", "count")?,
            cgroup_kn: need("cgroup", "kn")?,
            cgroup_parent: need("cgroup", "self.parent")?,
            cgroup_self: need("cgroup", "self")?,
            cgroup_root: need("cgroup", "root")?,
            root_hierarchy: need("cgroup_root", "hierarchy_id")?,
            kernfs_id: need("kernfs_node", "id")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        // A kernel without type information cannot run the observer either; nothing is to be shown there.
        let Ok(kernel) = Kernel::running() else { return };
        assert_eq!(kernel.layout().socket_inode % 8, 0);
        assert_eq!(kernel.arguments("tcp_sendmsg"), Some(3));
    }
}
