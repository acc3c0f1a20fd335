# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_fabnic_global_optspecs
    string join \n api= json token= h/help V/version
end

function __fish_fabnic_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_fabnic_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_fabnic_using_subcommand
    set -l cmd (__fish_fabnic_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c fabnic -n "__fish_fabnic_needs_command" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_needs_command" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_needs_command" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_needs_command" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_needs_command" -s V -l version -d 'Print version'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "status" -d 'Say whether the daemon works'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "port" -d 'Show and change ports'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "fdb" -d 'Show and change the forwarding database'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "vlan" -d 'Show the VLANs of ports'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "stats" -d 'Show counters and drop reasons'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "worker" -d 'Show what the workers do'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "config" -d 'Show the configuration that runs'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "rule" -d 'Show and change rules'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "group" -d 'Show and change security groups'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "mirror" -d 'Show and change mirrors'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "tenant" -d 'Show tenants, and make tokens for them'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "binding" -d 'Show and forget addresses that are bound to ports'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "lldp" -d 'Show neighbours that announced themselves by LLDP'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "conn" -d 'Show and flush connections that are tracked'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "meter" -d 'Show and change meters'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "mdb" -d 'Show who listens to multicast groups, and change static members'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "state" -d 'Show, save and move what the switch has learned and what runs in it'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "flow" -d 'Show the largest flows'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "trace" -d 'Say what would become of a frame, stage by stage, without sending it'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "why" -d 'Show the frames that were dropped lately at a port, and which stage dropped them'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "events" -d 'Show what happens as it happens, a line of JSON each'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "audit" -d 'Show who changed what'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "capture" -d 'Capture a port\'s frames as pcapng, with verdict or drop reason as a comment'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "apply" -d 'Make the running daemon equal to a file: all of it, or nothing'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "top" -d 'Watch ports and workers live'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "completions" -d 'Print the completions of a shell'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "man" -d 'Write the man pages'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "gen" -d 'Write all generated pages of docs/'
complete -c fabnic -n "__fish_fabnic_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand status" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand status" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand status" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand status" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -f -a "show" -d 'Show all ports, or one in detail'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -f -a "add" -d 'Add a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -f -a "set" -d 'Change keys of a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -f -a "del" -d 'Remove a port, and the static FDB entries that point to it'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and not __fish_seen_subcommand_from show add set del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from set" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from set" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from set" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from set" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from del" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show all ports, or one in detail'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from help" -f -a "set" -d 'Change keys of a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove a port, and the static FDB entries that point to it'
complete -c fabnic -n "__fish_fabnic_using_subcommand port; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "show" -d 'Show entries: `[MAC] [port NAME] [vlan N] [static|learned]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "stats" -d 'Show what was learned and forgotten, and what was not learned and why'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "add" -d 'Add a static entry: MAC port NAME vlan N'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "del" -d 'Remove static entries and forget learned ones: `[MAC] [port NAME] [vlan N] [static|learned]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from show" -l limit -d 'Most entries to show' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from stats" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from stats" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from stats" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show entries: `[MAC] [port NAME] [vlan N] [static|learned]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from help" -f -a "stats" -d 'Show what was learned and forgotten, and what was not learned and why'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a static entry: MAC port NAME vlan N'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove static entries and forget learned ones: `[MAC] [port NAME] [vlan N] [static|learned]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand fdb; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and not __fish_seen_subcommand_from show help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and not __fish_seen_subcommand_from show help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and not __fish_seen_subcommand_from show help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Show the VLANs of ports: `[port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show the VLANs of ports: `[port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand vlan; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and not __fish_seen_subcommand_from show help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and not __fish_seen_subcommand_from show help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and not __fish_seen_subcommand_from show help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Show counters of the switch and its ports'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from show" -s w -l watch -d 'Show again and again, as rates; every second unless said' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from show" -s q -l queues -d 'With each queue'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show counters of the switch and its ports'
complete -c fabnic -n "__fish_fabnic_using_subcommand stats; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and not __fish_seen_subcommand_from show help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and not __fish_seen_subcommand_from show help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and not __fish_seen_subcommand_from show help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Show cycles, bursts and sleep of each worker'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show cycles, bursts and sleep of each worker'
complete -c fabnic -n "__fish_fabnic_using_subcommand worker; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and not __fish_seen_subcommand_from show help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and not __fish_seen_subcommand_from show help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and not __fish_seen_subcommand_from show help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Show it as TOML'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show it as TOML'
complete -c fabnic -n "__fish_fabnic_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -f -a "show" -d 'Show all rules, or one in detail'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -f -a "add" -d 'Add a rule'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -f -a "set" -d 'Put another rule in the place of one; its counters go on'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -f -a "del" -d 'Remove rules, all of them or none'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and not __fish_seen_subcommand_from show add set del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from set" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from set" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from set" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from set" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from del" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show all rules, or one in detail'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a rule'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from help" -f -a "set" -d 'Put another rule in the place of one; its counters go on'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove rules, all of them or none'
complete -c fabnic -n "__fish_fabnic_using_subcommand rule; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -f -a "show" -d 'Show all groups, or the addresses of one'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -f -a "add" -d 'Add a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -f -a "set" -d 'Add and remove addresses of a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -f -a "del" -d 'Remove a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and not __fish_seen_subcommand_from show add set del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from set" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from set" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from set" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from del" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show all groups, or the addresses of one'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from help" -f -a "set" -d 'Add and remove addresses of a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand group; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -f -a "show" -d 'Show all mirrors'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -f -a "add" -d 'Add a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -f -a "set" -d 'Change keys of a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -f -a "del" -d 'Remove a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and not __fish_seen_subcommand_from show add set del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from set" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from set" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from set" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from set" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from del" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show all mirrors'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from help" -f -a "set" -d 'Change keys of a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand mirror; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -f -a "show" -d 'Show tenants with what they have of their quotas'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -f -a "token" -d 'Make a token: prints it, and the line of the configuration that makes it a tenant\'s'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and not __fish_seen_subcommand_from show token help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from token" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from token" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from token" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from token" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show tenants with what they have of their quotas'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from help" -f -a "token" -d 'Make a token: prints it, and the line of the configuration that makes it a tenant\'s'
complete -c fabnic -n "__fish_fabnic_using_subcommand tenant; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -f -a "show" -d 'Show bindings: `[ADDRESS] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -f -a "del" -d 'Forget learned bindings: `[ADDRESS] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and not __fish_seen_subcommand_from show del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show bindings: `[ADDRESS] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from help" -f -a "del" -d 'Forget learned bindings: `[ADDRESS] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand binding; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and not __fish_seen_subcommand_from show help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and not __fish_seen_subcommand_from show help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and not __fish_seen_subcommand_from show help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Show neighbours'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show neighbours'
complete -c fabnic -n "__fish_fabnic_using_subcommand lldp; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -f -a "show" -d 'Show connections: `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -f -a "flush" -d 'Forget connections: `all`, or `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -f -a "stats" -d 'Show the table\'s and its zones\' numbers'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and not __fish_seen_subcommand_from show flush stats help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from show" -l limit -d 'Most connections to show' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from show" -l from -d 'Go on where the page before ended' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from flush" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from flush" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from flush" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from flush" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from stats" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from stats" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from stats" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show connections: `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from help" -f -a "flush" -d 'Forget connections: `all`, or `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from help" -f -a "stats" -d 'Show the table\'s and its zones\' numbers'
complete -c fabnic -n "__fish_fabnic_using_subcommand conn; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -f -a "show" -d 'Show all meters with their tokens, or those of a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -f -a "add" -d 'Add a meter that rules can name'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -f -a "set" -d 'Change keys of a meter'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -f -a "del" -d 'Remove a meter'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and not __fish_seen_subcommand_from show add set del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from set" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from set" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from set" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from set" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from del" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show all meters with their tokens, or those of a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a meter that rules can name'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from help" -f -a "set" -d 'Change keys of a meter'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove a meter'
complete -c fabnic -n "__fish_fabnic_using_subcommand meter; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "show" -d 'Show members of groups: `[GROUP] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "stats" -d 'Show how many listen, and what was heard and sent, by VLAN'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "add" -d 'Add a static member: GROUP port NAME vlan N'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "del" -d 'Remove static members: `[GROUP] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and not __fish_seen_subcommand_from show stats add del help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from show" -l limit -d 'Most members to show' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from stats" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from stats" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from stats" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from add" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from add" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from add" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from add" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from del" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from del" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from del" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from del" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show members of groups: `[GROUP] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from help" -f -a "stats" -d 'Show how many listen, and what was heard and sent, by VLAN'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a static member: GROUP port NAME vlan N'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from help" -f -a "del" -d 'Remove static members: `[GROUP] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand mdb; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -f -a "show" -d 'Show what was saved last, and what came back when the daemon started'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -f -a "save" -d 'Save it now'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -f -a "export" -d 'Write the state of one port, to be taken in by another switch; with --json as text, to be read'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -f -a "import" -d 'Take in the state of a port that another switch gave'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and not __fish_seen_subcommand_from show save export import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from save" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from save" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from save" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from save" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from export" -l port -d 'Name of the port' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from export" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from export" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from export" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from import" -l port -d 'Name of the port here' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from import" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from import" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from import" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show what was saved last, and what came back when the daemon started'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "save" -d 'Save it now'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "export" -d 'Write the state of one port, to be taken in by another switch; with --json as text, to be read'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "import" -d 'Take in the state of a port that another switch gave'
complete -c fabnic -n "__fish_fabnic_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and not __fish_seen_subcommand_from show help" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and not __fish_seen_subcommand_from show help" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and not __fish_seen_subcommand_from show help" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Show the largest flows'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from show" -s n -l limit -d 'Most flows to show' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from show" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from show" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from show" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show the largest flows'
complete -c fabnic -n "__fish_fabnic_using_subcommand flow; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -l hex -d 'The frame as hexadecimal digits, from its destination address on' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -l pcap -d 'The frame from a capture file (pcap or pcapng), or - for standard input' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -l nth -d 'Which frame of the file, counted from 1' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand trace" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand why" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand why" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand why" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand why" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand events" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand events" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand events" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand events" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand audit" -s n -l limit -d 'Most entries to show' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand audit" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand audit" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand audit" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand audit" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -s w -l write -d 'File to write, or - for standard output' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -s s -l snaplen -d 'Most bytes to keep of a frame' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -s Q -l direction -d 'Which way, seen from the switch' -r -f -a "rx\t'From the port\'s peer'
tx\t'To the port\'s peer'
both\t'Both'"
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -s c -l count -d 'End after so many frames' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand capture" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fabnic -n "__fish_fabnic_using_subcommand apply" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand apply" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand apply" -l dry-run -d 'Only say what would change'
complete -c fabnic -n "__fish_fabnic_using_subcommand apply" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand apply" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand top" -s i -l interval -d 'Seconds between looks' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand top" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand top" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand top" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand top" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand completions" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand completions" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand completions" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand completions" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand man" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand man" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand man" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand man" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand gen" -l api -d 'Unix socket of the daemon\'s API' -r -F
complete -c fabnic -n "__fish_fabnic_using_subcommand gen" -l token -d 'Token of a tenant: the request is the tenant\'s. Better in the environment, where others do not see it' -r
complete -c fabnic -n "__fish_fabnic_using_subcommand gen" -l json -d 'Print the daemon\'s answer as JSON'
complete -c fabnic -n "__fish_fabnic_using_subcommand gen" -s h -l help -d 'Print help'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "status" -d 'Say whether the daemon works'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "port" -d 'Show and change ports'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "fdb" -d 'Show and change the forwarding database'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "vlan" -d 'Show the VLANs of ports'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "stats" -d 'Show counters and drop reasons'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "worker" -d 'Show what the workers do'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "config" -d 'Show the configuration that runs'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "rule" -d 'Show and change rules'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "group" -d 'Show and change security groups'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "mirror" -d 'Show and change mirrors'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "tenant" -d 'Show tenants, and make tokens for them'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "binding" -d 'Show and forget addresses that are bound to ports'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "lldp" -d 'Show neighbours that announced themselves by LLDP'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "conn" -d 'Show and flush connections that are tracked'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "meter" -d 'Show and change meters'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "mdb" -d 'Show who listens to multicast groups, and change static members'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "state" -d 'Show, save and move what the switch has learned and what runs in it'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "flow" -d 'Show the largest flows'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "trace" -d 'Say what would become of a frame, stage by stage, without sending it'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "why" -d 'Show the frames that were dropped lately at a port, and which stage dropped them'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "events" -d 'Show what happens as it happens, a line of JSON each'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "audit" -d 'Show who changed what'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "capture" -d 'Capture a port\'s frames as pcapng, with verdict or drop reason as a comment'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "apply" -d 'Make the running daemon equal to a file: all of it, or nothing'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "top" -d 'Watch ports and workers live'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "completions" -d 'Print the completions of a shell'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "man" -d 'Write the man pages'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "gen" -d 'Write all generated pages of docs/'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and not __fish_seen_subcommand_from status port fdb vlan stats worker config rule group mirror tenant binding lldp conn meter mdb state flow trace why events audit capture apply top completions man gen help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "show" -d 'Show all ports, or one in detail'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "add" -d 'Add a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "set" -d 'Change keys of a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "del" -d 'Remove a port, and the static FDB entries that point to it'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from fdb" -f -a "show" -d 'Show entries: `[MAC] [port NAME] [vlan N] [static|learned]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from fdb" -f -a "stats" -d 'Show what was learned and forgotten, and what was not learned and why'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from fdb" -f -a "add" -d 'Add a static entry: MAC port NAME vlan N'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from fdb" -f -a "del" -d 'Remove static entries and forget learned ones: `[MAC] [port NAME] [vlan N] [static|learned]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from vlan" -f -a "show" -d 'Show the VLANs of ports: `[port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from stats" -f -a "show" -d 'Show counters of the switch and its ports'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from worker" -f -a "show" -d 'Show cycles, bursts and sleep of each worker'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Show it as TOML'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from rule" -f -a "show" -d 'Show all rules, or one in detail'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from rule" -f -a "add" -d 'Add a rule'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from rule" -f -a "set" -d 'Put another rule in the place of one; its counters go on'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from rule" -f -a "del" -d 'Remove rules, all of them or none'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from group" -f -a "show" -d 'Show all groups, or the addresses of one'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from group" -f -a "add" -d 'Add a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from group" -f -a "set" -d 'Add and remove addresses of a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from group" -f -a "del" -d 'Remove a group'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mirror" -f -a "show" -d 'Show all mirrors'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mirror" -f -a "add" -d 'Add a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mirror" -f -a "set" -d 'Change keys of a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mirror" -f -a "del" -d 'Remove a mirror'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from tenant" -f -a "show" -d 'Show tenants with what they have of their quotas'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from tenant" -f -a "token" -d 'Make a token: prints it, and the line of the configuration that makes it a tenant\'s'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from binding" -f -a "show" -d 'Show bindings: `[ADDRESS] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from binding" -f -a "del" -d 'Forget learned bindings: `[ADDRESS] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from lldp" -f -a "show" -d 'Show neighbours'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from conn" -f -a "show" -d 'Show connections: `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from conn" -f -a "flush" -d 'Forget connections: `all`, or `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from conn" -f -a "stats" -d 'Show the table\'s and its zones\' numbers'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from meter" -f -a "show" -d 'Show all meters with their tokens, or those of a port'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from meter" -f -a "add" -d 'Add a meter that rules can name'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from meter" -f -a "set" -d 'Change keys of a meter'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from meter" -f -a "del" -d 'Remove a meter'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mdb" -f -a "show" -d 'Show members of groups: `[GROUP] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mdb" -f -a "stats" -d 'Show how many listen, and what was heard and sent, by VLAN'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mdb" -f -a "add" -d 'Add a static member: GROUP port NAME vlan N'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from mdb" -f -a "del" -d 'Remove static members: `[GROUP] [port NAME] [vlan N]`'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "show" -d 'Show what was saved last, and what came back when the daemon started'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "save" -d 'Save it now'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "export" -d 'Write the state of one port, to be taken in by another switch; with --json as text, to be read'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "import" -d 'Take in the state of a port that another switch gave'
complete -c fabnic -n "__fish_fabnic_using_subcommand help; and __fish_seen_subcommand_from flow" -f -a "show" -d 'Show the largest flows'
