"""Files that are not what they seem, made by a cell and met by what saves: name, link, archive, size, kind."""

from tests.security.attacks import Attack

NAMES = (
    Attack("a_name_of_raw_bytes_is_saved", "open(b'/workspace/\\xff\\xfe', 'w').write('x')", "1"),
    Attack("a_name_with_line_ends_and_escapes_is_saved", "open('/workspace/a\\n\\x1b[2J\\u202eb', 'w').write('x')", "1"),
    Attack("the_longest_name_is_saved", "open('/workspace/' + 'n' * 255, 'w').write('x')", "1"),
    Attack("a_name_over_the_longest_is_refused", "tried(open, '/workspace/' + 'n' * 256, 'w')", "'ENAMETOOLONG'"),
    Attack("a_path_deeper_than_is_read_is_left_out", "for _ in range(400):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\nos.chdir('/workspace')", "None"),
    Attack("a_name_that_climbs_is_a_name", "tried(open, '/workspace/..\\\\..\\\\etc', 'w')", "'done'"),
    Attack("many_names_are_counted", "for number in range(5_000): open(f'/workspace/{number}', 'w').close()", "None"),
)  # fmt: skip

LINKS = (
    Attack("a_link_to_the_hosts_secrets_leads_into_the_image", "os.symlink('/etc/shadow', '/workspace/l')\ntried(open, '/workspace/l')", ("'ENOENT'", "'EACCES'")),
    Attack("a_link_to_pid_1_is_not_followed", "os.symlink('/proc/1/environ', '/workspace/l')\ntried(open, '/workspace/l')", "'EACCES'"),
    Attack("a_link_to_the_workers_memory_is_not_saved", "os.symlink('/proc/self/mem', '/workspace/l')", "None"),
    Attack("a_loop_of_links_is_not_followed", "os.symlink('l', '/workspace/l')\ntried(open, '/workspace/l')", "'ELOOP'"),
    Attack("a_link_to_the_workspace_itself_is_not_followed", "os.symlink('/workspace', '/workspace/l')\nos.symlink('..', '/workspace/up')", "None"),
    Attack("a_hard_link_to_the_image_is_refused", "tried(os.link, '/etc/passwd', '/workspace/l')", "'EXDEV'"),
    Attack("hard_links_by_the_thousand_are_saved", "open('/workspace/one', 'w').close()\nfor n in range(1_000): os.link('/workspace/one', f'/workspace/{n}')", "None"),
    Attack("a_link_of_another_session_is_not_there", "tried(open, '/workspace/secret')", "'ENOENT'"),
    Attack("a_link_through_a_descriptor_leads_nowhere_else", "os.symlink('/proc/self/fd/0', '/workspace/l')\nopen('/workspace/l').read()", "''"),
)  # fmt: skip

ARCHIVES = (
    Attack("a_zip_that_climbs_out_stays_inside", """
import io, zipfile
data = io.BytesIO()
with zipfile.ZipFile(data, 'w') as archive: archive.writestr('../../etc/cron.d/mine', 'x')
with zipfile.ZipFile(data) as archive: archive.extractall('/workspace')
os.path.exists('/etc/cron.d/mine'), os.path.exists('/workspace/etc/cron.d/mine')
""", "(False, True)"),
    Attack("a_tar_that_climbs_out_meets_a_read_only_root", """
import io, tarfile
data = io.BytesIO()
with tarfile.open(fileobj=data, mode='w') as archive:
    archive.addfile(tarfile.TarInfo('/usr/lib/mine'), io.BytesIO())
data.seek(0)
tried(tarfile.TarFile(fileobj=data).extractall, '/')
""", "'EROFS'"),
    Attack("a_tar_with_devices_makes_none", """
import io, tarfile
data = io.BytesIO()
with tarfile.open(fileobj=data, mode='w') as archive:
    device = tarfile.TarInfo('device')
    device.type, device.devmajor, device.devminor = tarfile.BLKTYPE, 8, 0
    archive.addfile(device)
data.seek(0)
tried(tarfile.TarFile(fileobj=data).extractall, '/workspace')
""", ("'EPERM'", "exception ExtractError")),
    Attack("a_bomb_of_zeros_meets_the_size_of_the_workspace", """
import io, zipfile
data = io.BytesIO()
with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as archive:
    with archive.open('zeros', 'w') as file:
        for _ in range(100): file.write(bytes(1 << 20))
with zipfile.ZipFile(data) as archive: tried(archive.extractall, '/workspace')
""", "None"),
    Attack("a_wheel_with_a_program_that_gains_rights_gains_none", """
shutil.copy('/bin/sleep', '/workspace/program')
os.chmod('/workspace/program', 0o6755)
subprocess.run(['/workspace/program', '0']).returncode, os.statvfs('/workspace').f_flag & os.ST_NOSUID
""", "(0, 2)"),
)  # fmt: skip

KINDS = (
    Attack("a_sparse_giant_is_saved_as_its_holes", "os.truncate(giant(), 1 << 30)\nos.stat('/workspace/giant').st_blocks", "0"),
    Attack("many_sparse_giants_are_bounded", "for n in range(64):\n    with open(f'/workspace/{n}', 'wb') as file: file.truncate(1 << 30)", "None"),
    Attack("a_fifo_holds_up_no_save", "os.mkfifo('/workspace/fifo')", "None"),
    Attack("a_socket_is_left_out", "held = socket.socket(socket.AF_UNIX)\nheld.bind('/workspace/socket')", "None"),
    Attack("a_device_is_not_made", "tried(os.mknod, '/workspace/disk', 0o60600, os.makedev(8, 0))", "'EPERM'"),
    Attack("a_file_without_rights_is_told_of_or_saved", "open('/workspace/shut', 'w').close()\nos.chmod('/workspace/shut', 0)", "None"),
    Attack("a_directory_without_rights_is_told_of_or_saved", "os.mkdir('/workspace/shut')\nos.chmod('/workspace/shut', 0)", "None"),
    Attack("a_file_that_grows_while_it_is_read_is_bounded", """
subprocess.Popen(['sh', '-c', 'while echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; do :; done > /workspace/grows'])
None
""", "None"),
    Attack("a_file_that_changes_its_kind_is_left_as_it_is_met", """
subprocess.Popen(['sh', '-c', 'while :; do ln -sfn /etc/passwd /workspace/t; rm -rf /workspace/t; mkdir /workspace/t; rmdir /workspace/t; : > /workspace/t; rm -f /workspace/t; done 2>/dev/null'])
None
""", "None"),
    Attack("a_workspace_that_is_gone_is_not_gone", "tried(os.rename, '/workspace', '/gone'), tried(os.rmdir, '/workspace')", "('EROFS', 'EROFS')"),
    Attack("a_mount_over_the_workspace_is_refused", "call('mount', b'none', b'/workspace', b'tmpfs', 0, 0)", "'EPERM'"),
    Attack("a_locked_file_holds_up_no_save", "import fcntl\nheld = open('/workspace/locked', 'w')\nfcntl.flock(held, fcntl.LOCK_EX)", "None"),
    Attack("a_lease_on_a_file_holds_up_no_save", "import fcntl\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nopen('/workspace/leased', 'w').close()\nheld = os.open('/workspace/leased', os.O_RDWR)\nfcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)", "0"),
    Attack("attributes_of_files_are_bounded", "tried(lambda: [os.setxattr(giant(), f'user.{n}', bytes(60_000)) for n in range(2_000)])", ("'EOPNOTSUPP'", "'ENOSPC'", "'EPERM'")),
)  # fmt: skip

FILES = (*NAMES, *LINKS, *ARCHIVES, *KINDS)
