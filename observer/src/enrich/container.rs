//! Which container a process runs in, as its control group tells.

/// Bytes of a container id as every runtime writes it, in hexadecimal digits.
const ID_DIGITS: usize = 64;

/// The container id in the text of `/proc/PID/cgroup`; `None` for a process of the host.
///
/// Runtimes name the group `…/ID`, `…/docker-ID.scope`, `…/cri-containerd-ID.scope`, `…/crio-ID.scope` or
/// `…/libpod-ID.scope/container`; the innermost one counts.
#[must_use]
pub(super) fn container_id(cgroup: &str) -> Option<&str> {
    cgroup
        .lines()
        .find_map(|line| line.split('/').rev().find_map(id_of_group))
}

fn id_of_group(group: &str) -> Option<&str> {
    let name = group.strip_suffix(".scope").unwrap_or(group);
    let id = name.rsplit(['-', ':']).next()?;
    (id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_as_each_runtime_writes_them() {
        let id = "0123456789abcdef".repeat(4);
        for group in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("12:cpu:/kubepods/besteffort/pod1/{id}\n"),
            format!("0::/kubepods.slice/pod.slice/cri-containerd-{id}.scope\n"),
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
            format!("0::/kubepods-pod1.slice:cri-containerd:{id}\n"),
        ] {
            assert_eq!(container_id(&group), Some(id.as_str()), "{group}");
        }
        assert_eq!(container_id("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(container_id(""), None);
    }
}
