# frozen_string_literal: true

# What plain Vagrant queries and reports to a cluster's servers before it provisions or destroys a machine. The Vagrantfile
# defines the constants; Pulumi does the same by k3s.sh.
require "json"
require "open3"
require "tempfile"
require "timeout"

# The files of provision/ as one script, as Pulumi runs them.
def scripts(*files)
  files.map { |file| File.read(File.join(__dir__, "provision", file)) }.join
end

# Runs machine.sh, which identifies a machine by its marks in its provider's list. Exits if there is no such list.
def provider_id(machine)
  environment = {
    "K3S_LAB_ROOT" => ROOT, "LAB_STACK" => STACK, "LAB_PROVIDER" => machine.provider_name.to_s,
    "LAB_MACHINE" => JSON.generate("name" => machine.name), "LAB_GENERATION" => nil
  }
  found, said, status = Open3.capture3(environment, File.join(__dir__, "machine.sh"), "find")
  status.success? ? found.strip : fail_with("It is unknown whether the machine #{machine.name} exists. #{said.strip}")
end

# The other existing servers. If Vagrant has lost its record of one, writes it again.
def peers(machine)
  names = SERVERS.map { |server| server["name"].to_sym } - [machine.name]
  names.map { |name| machine.env.machine(name, machine.provider_name) }.select do |peer|
    next true unless peer.state.id == :not_created

    id = provider_id(peer)
    peer.id = id unless id.empty?
    !id.empty?
  end
end

# Runs a command as root on its own connection: `vagrant up` may use the machine's concurrently, in another thread.
# @return [Integer] its exit code
# @raise [Vagrant::Errors::VagrantError] if it does not finish in time; with error_check also if it fails
def run_on(machine, command, seconds, **options, &output)
  connection = Vagrant.plugin("2").manager.communicators[machine.config.vm.communicator || :ssh].new(machine)
  Timeout.timeout(seconds) { connection.sudo(command, **options, &output) }
rescue Timeout::Error
  fail_with("#{machine.name} gave no answer within #{seconds} s.")
end

# @return [String] the output of a command that uses common.sh
def ask(machine, command)
  said = +""
  run_on(machine, "#{scripts("common.sh")}\n#{command}", 30) { |stream, text| said << text if stream == :stdout }
  said.strip
end

# Runs leave.sh, which has its own timeouts, on a server.
# @return [Integer] its exit code; 4 also if the server is unreachable
def run_leave(peer, machine, step)
  return 4 unless peer.state.id == :running

  it = MACHINES.find { |one| one["name"] == machine.name.to_s }
  script = [scripts("common.sh", "leave.sh")].pack("m0")
  command = "echo #{script} | base64 -d | BY_HAND=yes NODE_NAME=#{machine.name} NODE_IP=#{it["ip"]} K3S_ARGS='#{k3s_args(it)}' timeout 600 bash -s #{step}"
  run_on(peer, command, 630, error_check: false) { |_, text| machine.ui.detail(text.chomp) }
rescue Vagrant::Errors::VagrantError
  4
end

# Has one of these servers report a leaving node, or no node of its name could join again; see leave.sh.
def tell_servers(servers, machine, step)
  silent = servers.select do |peer|
    status = run_leave(peer, machine, step)
    return if status.zero?
    # 3: this server has no cluster. 4: it does not answer, or 124: not in time.
    fail_with("#{peer.name} could not tell the cluster about #{machine.name}; its reason is above.") unless [3, 4, 124].include?(status)
    status != 3
  end
  fail_with("These servers do not answer and cannot be told about #{machine.name}: #{silent.map(&:name).join(", ")}.") unless silent.empty?
end

# The servers that remain after this command, whose arguments are names or patterns. Without names all go. A user who
# is prompted may decline any, and a user's alias hides the names: then every existing server may remain.
def staying(machine)
  command, *named = ARGV.reject { |word| word.start_with?("-") }
  return peers(machine) unless command == "destroy" && (ARGV & %w[-f --force]).any?
  return [] if named.empty?

  peers(machine).reject do |peer|
    named.any? { |word| (pattern = word[%r{\A/(.+)/\z}, 1]) ? peer.name.match?(pattern) : word == peer.name.to_s }
  end
end

# Without leaving, a destroyed server would still count in etcd, and the others might lose quorum.
def leave(machine)
  tell_servers(staying(machine), machine, machine.state.id == :running ? "before" : "gone")
rescue Vagrant::Errors::VagrantError => e
  why = "the cluster was not told that it is leaving, and may lose its quorum with it. #{e.message.lines.first.strip}"
  return machine.ui.warn("#{machine.name} is destroyed although #{why}") if ENV["LAB_FORCE_DESTROY"] == "1"

  fail_with("#{machine.name} was not destroyed: #{why} Bring the other servers back and run the same command again; or, if their " \
    "cluster may be lost: LAB_FORCE_DESTROY=1 vagrant destroy #{machine.name}; or, to destroy all machines: vagrant destroy --force")
end

def tell_of_leaving(machine)
  tell_servers(staying(machine), machine, "after")
rescue Vagrant::Errors::VagrantError => e
  machine.ui.warn("The cluster was not told that #{machine.name} has left: #{e.message.lines.first}")
end

# Asks the other servers for their cluster, until one answers or all report none; for 60 s at most.
# @return [Array(String, Array<Symbol>)] the cluster's id, or nothing; and the servers that did not answer
def find_cluster(servers)
  deadline = Time.now + 60
  loop do
    servers = servers.select do |peer|
      next true unless peer.state.id == :running

      id = ask(peer, "hash_of $data/server/tls/server-ca.crt")
      return [id, []] unless id.empty?
    rescue Vagrant::Errors::VagrantError
      true
    end
    return ["", servers.map(&:name)] if servers.empty? || Time.now > deadline
    sleep(0.5)
  end
end

# What k3s.sh must know about the cluster before it changes this machine: a server that lost its data rejoins the others.
def cluster_environment(machine, role)
  has_data = ask(machine, "NODE_ROLE=#{role}; if has_data; then echo yes; fi") == "yes"
  return {} if has_data && role == "server"

  others = peers(machine)
  id, silent = find_cluster(others)
  tell_servers(others.select { |peer| peer.state.id == :running }, machine, "forget") unless has_data || id.empty?
  { "CLUSTER_CA" => id, "SILENT" => silent.join(" ") }
end

# Runs once a machine's destruction is confirmed or forced. Pulumi informs the servers itself.
class Leaving
  # Machines to destroy, without those that the user declined.
  NAMES = []

  def initialize(app, _)
    @app = app
  end

  def call(env)
    machine = env[:machine]
    if env[:result] && !RECORDED
      leave(machine) if SERVERS.any? { |server| server["name"] == machine.name.to_s }
      NAMES << machine.name
    end
    @app.call(env)
  end
end

# Vagrant's shell provisioner, which first determines the other servers' cluster. Uploads the secrets last:
# k3s.sh removes them, however it ends.
class LabPlugin < Vagrant.plugin("2")
  name "k3s-lab"
  action_hook(:leaving, :machine_action_destroy) { |hook| hook.after(Vagrant::Action::Builtin::DestroyConfirm, Leaving) }
  # Vagrant does not query a machine that Pulumi creates: to detect its system, it would log in a dozen times.
  communicator(:k3s_lab) do
    Class.new(Vagrant.plugin("2", :communicator)) { def ready? = false }
  end
  config(:k3s_lab, :provisioner) { Vagrant.plugin("2").manager.provisioner_configs[:shell] }
  provisioner(:k3s_lab) do
    Class.new(Vagrant.plugin("2").manager.provisioners[:shell]) do
      def provision
        env = config.env
        env.merge!(cluster_environment(machine, env["NODE_ROLE"]), "UNASKED" => "yes")
        secrets = lab("config", STACK, "--secrets") if env["NODE_ROLE"] == "server"
        installer = File.join(LAB, "bin", "install.sh")
        machine.communicate.upload(installer, env["INSTALLER"] = "/home/vagrant/.k3s-install.sh") if File.exist?(installer)
        machine.communicate.upload(TOKEN, env["TOKEN_FILE"])
        upload_secrets(secrets, env["SECRET_FILE"]) unless secrets.to_s.empty?
        super
        tell_servers(env["NODE_ROLE"] == "server" ? [machine] : peers(machine), machine, "marks")
      end

      # Uploads a file that only its owner may read, on both sides.
      def upload_secrets(text, path)
        Tempfile.create("k3s-lab") do |file|
          file.write(text)
          file.close
          machine.communicate.upload(file.path, path)
        end
      end
    end
  end
end
