# frozen_string_literal: true

# The box's disk in libvirt's pool. vagrant-libvirt takes one that is there for whole, also one over whose upload it was killed.
require "open3"

# What was found, by the box's name. Machines are made side by side: by the second look the first one may be uploading its disk.
HALVES = {}
LOOKING = Mutex.new

# What libvirt says of its pool, or why it says nothing.
def ask_pool(command, *names)
  Open3.capture2e("virsh", "--connect", "qemu:///system", "--quiet", command, "--pool", "k3s-lab", *names).first
end

# @return [String, nil] the disk's name, where it is shorter than the box's and no machine begins as it, for then it may be that of
#   an older box of the same name; nil too where libvirt has none, or does not say
def half_disk(box)
  image = File.join(box.directory.to_s, "box.img")
  return unless File.file?(image)

  name = "#{box.name.gsub("/", "-VAGRANTSLASH-")}_vagrant_box_image_#{box.version}_box.img"
  bytes = ask_pool("vol-dumpxml", name)[/<physical unit=.bytes.>(\d+)</, 1]
  return unless bytes && bytes.to_i < File.size(image)

  others = ask_pool("vol-list").lines.filter_map { |line| line.split.first } - [name]
  name if others.none? { |other| ask_pool("vol-dumpxml", other)[%r{<backingStore>\s*<path>(.*?)</path>}, 1].to_s.end_with?("/#{name}") }
rescue Errno::ENOENT
  nil
end

def refuse_half_disk(box)
  return if box.nil?

  name = LOOKING.synchronize { HALVES.fetch(box.name) { HALVES[box.name] = half_disk(box) } }
  return unless name

  fail_with("libvirt has only part of the disk of the box #{box.name}: its upload was interrupted or is still running. Run " \
    "scripts/lab up, which copies it again.")
end
