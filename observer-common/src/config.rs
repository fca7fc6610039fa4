//! Values that the daemon writes into the kernel object before it is loaded.

use core::mem::size_of;

/// A field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Offsets of kernel fields in bytes, read from the running kernel's BTF; none is known at compile time.
///
/// Names are `struct_field` in the kernel's own words, without the struct's suffix where that is long. A field that the
/// kernel does not have is [`ABSENT`]; only those said to be optional may be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `task_struct.files`.
    pub task_files: u32,
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.exit_code`.
    pub task_exit_code: u32,
    /// `task_struct.thread_info.status`, whose bit 1 is `TS_COMPAT` on x86; optional elsewhere.
    pub task_status: u32,
    /// `signal_struct.live`.
    pub signal_live: u32,
    /// `signal_struct.group_exit_code`.
    pub signal_group_exit_code: u32,
    /// `files_struct.fdt`.
    pub files_fdt: u32,
    /// `fdtable.max_fds`.
    pub fdtable_max_fds: u32,
    /// `fdtable.fd`.
    pub fdtable_files: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `file.private_data`.
    pub file_private_data: u32,
    /// `file.f_mode`.
    pub file_mode: u32,
    /// `file.f_count`, or `file.f_ref` from 6.13.
    pub file_references: u32,
    /// The value of that counter when one reference is left: 1 for `f_count`, 0 for `f_ref`.
    pub file_last_reference: u32,
    /// `inode.i_mode`.
    pub inode_mode: u32,
    /// `inode.i_ino`.
    pub inode_number: u32,
    /// `inode.i_pipe`.
    pub inode_pipe: u32,
    /// `kiocb.ki_filp`.
    pub kiocb_file: u32,
    /// `pipe_inode_info.readers`.
    pub pipe_readers: u32,
    /// `pipe_inode_info.writers`.
    pub pipe_writers: u32,
    /// `pipe_inode_info.head`.
    pub pipe_head: u32,
    /// `pipe_inode_info.tail`.
    pub pipe_tail: u32,
    /// `pipe_inode_info.ring_size`: buffers of the pipe, a power of two.
    pub pipe_ring_size: u32,
    /// `pipe_inode_info.bufs`.
    pub pipe_buffers: u32,
    /// Size of `struct pipe_buffer`.
    pub pipe_buffer_size: u32,
    /// `pipe_buffer.len`.
    pub pipe_buffer_length: u32,
    /// `socket.sk`.
    pub socket_sk: u32,
    /// `socket_alloc.vfs_inode`: from a `struct socket` to its inode.
    pub socket_inode: u32,
    /// `socket.file`.
    pub socket_file: u32,
    /// `sock.sk_socket`.
    pub sock_socket: u32,
    /// `sock.sk_type`.
    pub sock_type: u32,
    /// `sock.sk_protocol`.
    pub sock_protocol: u32,
    /// `sock_common.skc_family`.
    pub sock_family: u32,
    /// `sock_common.skc_num`: local port, host byte order.
    pub sock_local_port: u32,
    /// `sock_common.skc_dport`: remote port, network byte order.
    pub sock_remote_port: u32,
    /// `sock_common.skc_rcv_saddr`.
    pub sock_local_v4: u32,
    /// `sock_common.skc_daddr`.
    pub sock_remote_v4: u32,
    /// `sock_common.skc_v6_rcv_saddr`; optional.
    pub sock_local_v6: u32,
    /// `sock_common.skc_v6_daddr`; optional.
    pub sock_remote_v6: u32,
    /// `sock_common.skc_net`.
    pub sock_net: u32,
    /// `net.ns.inum`.
    pub net_inode: u32,
    /// `unix_sock.peer`.
    pub unix_peer: u32,
    /// `sock.sk_receive_queue`.
    pub sock_receive_queue: u32,
    /// `sk_buff.next`, and `sk_buff_head.next` in the same place.
    pub skb_next: u32,
    /// `sk_buff.len`.
    pub skb_length: u32,
    /// `sk_buff.cb`.
    pub skb_control: u32,
    /// `unix_skb_parms.consumed`, in `sk_buff.cb`.
    pub unix_consumed: u32,
    /// `tcp_sock.write_seq`.
    pub tcp_write_seq: u32,
    /// `tcp_sock.copied_seq`.
    pub tcp_copied_seq: u32,
    /// `tcp_sock.snd_una`.
    pub tcp_snd_una: u32,
    /// `tcp_sock.rcv_nxt`.
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.bytes_acked`.
    pub tcp_bytes_acked: u32,
    /// `tcp_sock.bytes_received`.
    pub tcp_bytes_received: u32,
    /// `msghdr.msg_iter`.
    pub msghdr_iter: u32,
    /// `iov_iter.iter_type`, or `iov_iter.type` before 5.14.
    pub iter_kind: u32,
    /// Bits of that field that name the kind.
    pub iter_kind_mask: u32,
    /// `ITER_IOVEC`.
    pub iter_iovec: u32,
    /// `ITER_UBUF`; [`ABSENT`] before 6.0.
    pub iter_ubuf: u32,
    /// `iov_iter.iov`, or `__iov` from 6.4; the user address itself when the kind is `ITER_UBUF`.
    pub iter_base: u32,
    /// `iov_iter.nr_segs`.
    pub iter_segments: u32,
    /// `iov_iter.iov_offset`.
    pub iter_offset: u32,
    /// `iov_iter.count`.
    pub iter_count: u32,
    /// `cgroup.kn`.
    pub cgroup_kn: u32,
    /// `cgroup.self.parent`, a pointer to the parent's `cgroup.self`.
    pub cgroup_parent: u32,
    /// `cgroup.self`.
    pub cgroup_self: u32,
    /// `cgroup.root`.
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`: 0 for cgroup v2.
    pub root_hierarchy: u32,
    /// `kernfs_node.id`.
    pub kernfs_id: u32,
}

/// Whose calls are copied.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    /// Every process but the observer.
    Node = 0,
    /// Processes in the table of processes, or in a group of the table of groups.
    Listed = 1,
}

/// What the kernel side is told once, before it is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Process id of the observer, which is never in scope.
    pub observer: u32,
    /// A [`ScopeKind`].
    pub scope: u32,
    /// 1 when the table of groups is in use.
    pub cgroups: u32,
    /// 1 when the table of processes is in use.
    pub processes: u32,
    /// 1 where a probe knows by a number what it was attached for (5.15 and later).
    pub cookies: u32,
    /// Programs on the return of each function that moves bytes: 2 where the kernel may leave one out.
    pub returns: u32,
}

const _: () = assert!(size_of::<Layout>() == 71 * 4 && size_of::<Settings>() == 24);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, `u32` fields only, no padding, every bit pattern valid.
unsafe impl aya::Pod for Layout {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Settings {}
