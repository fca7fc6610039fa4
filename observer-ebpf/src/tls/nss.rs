//! NSS: plain text passes through the functions of NSPR that move bytes of any file.
//!
//! | hook | on | records |
//! |---|---|---|
//! | uprobe `tls_send_file` | `PR_Write`, `PR_Send` | none |
//! | uprobes `tls_receive_file`, `tls_receive_file_flags` | `PR_Read`; `PR_Recv` | none |
//! | uretprobe `tls_return` | the same | Opened, Data |
//! | uprobe `tls_end` | `PR_Close` | Closed |
//!
//! A file of NSPR is a stack of layers (`prio.h`), the uppermost of which its program has; NSS is one of them. Its own value of the
//! layer, `sslSocketStr`, begins with the layer's address since NSS 3.14 (`ssl_GetPrivate` of `sslsock.c`), which tells it from others.
//! A layer moves bytes by calling the one below, not these functions; but NSS may read other files while it is in one.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use observer_common::stream::Direction;

use super::{TLS_CALLS, TlsCall, begun, stay_off_private_stack};
use crate::{kernel::read_user, scope};

/// `PR_MSG_PEEK` of `prio.h`: the bytes come again.
const PEEK: u32 = 0x2;

/// What the layers above NSS may be; none is the rule.
const MAX_ABOVE: u32 = 2;

// PRInt32 PR_Write(PRFileDesc *fd, const void *buf, PRInt32 amount)
// PRInt32 PR_Send(PRFileDesc *fd, const void *buf, PRInt32 amount, PRIntn flags, PRIntervalTime timeout)
#[uprobe]
pub fn tls_send_file(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Sent, 0)
}

// PRInt32 PR_Read(PRFileDesc *fd, void *buf, PRInt32 amount)
#[uprobe]
pub fn tls_receive_file(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Received, 0)
}

// PRInt32 PR_Recv(PRFileDesc *fd, void *buf, PRInt32 amount, PRIntn flags, PRIntervalTime timeout)
#[uprobe]
pub fn tls_receive_file_flags(ctx: ProbeContext) -> i32 {
    stay_off_private_stack(&ctx);
    entered(&ctx, Direction::Received, ctx.arg::<u64>(3).unwrap_or(0) as u32)
}

#[inline(always)]
fn entered(ctx: &ProbeContext, direction: Direction, flags: u32) -> i32 {
    if !scope::watches_current() {
        return 0;
    }
    let file: u64 = ctx.arg(0).unwrap_or(0);
    if flags & PEEK == 0 && has_tls(file) {
        begun(TlsCall {
            session: file,
            buffer: ctx.arg(1).unwrap_or(0),
            size: u64::from(ctx.arg::<u64>(2).unwrap_or(0) as u32),
            ..TlsCall::new(direction)
        });
    } else if let Some(outer) = TLS_CALLS.get_ptr_mut(&scope::current()) {
        // SAFETY: a live map value that only this thread uses.
        unsafe {
            if (*outer).session != 0 {
                (*outer).within += 1;
            }
        }
    }
    0
}

/// Whether one of the uppermost layers of a file is of NSS.
#[inline(always)]
fn has_tls(file: u64) -> bool {
    // struct PRFileDesc { const PRIOMethods *methods; PRFilePrivate *secret; PRFileDesc *lower, *higher; … }
    let mut layer = file;
    for _ in 0..=MAX_ABOVE {
        let Some([_, own, below]) = read_user::<[u64; 3]>(layer) else {
            return false;
        };
        if below == 0 {
            return false;
        }
        if own != 0 && read_user::<u64>(own) == Some(layer) {
            return true;
        }
        layer = below;
    }
    false
}
