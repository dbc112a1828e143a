# Part of Puffin Fleet, under the BSD 3-Clause License; see LICENSE.
"""Inventory plugin: the hosts of a hosts.yaml of Puffin Fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts_yaml
short_description: The hosts of a hosts.yaml of Puffin Fleet
version_added: 0.1.0
author:
  - The Puffin Fleet developers
description:
  - Reads the same C(hosts.yaml) that C(puffin-fleet) reads, so that there is one description of the hosts.
  - Ranges, defaults, groups and included files are resolved by C(puffin-fleet inventory --ansible), which must be
    installed on the controller.
  - All hosts are in the group V(puffin_fleet); the groups of C(hosts.yaml) become groups, with underscores for
    characters that Ansible does not allow in a name.
  - What says how to reach a host becomes C(ansible_host), C(ansible_port), C(ansible_user),
    C(ansible_ssh_private_key_file) and C(ansible_ssh_common_args) (jump host, known hosts; unknown host keys are
    refused), or C(ansible_connection=local).
  - The rest becomes variables with the prefix C(puffin_), such as C(puffin_user), C(puffin_base_dir),
    C(puffin_scratch) and C(puffin_layout). Secrets are not among them.
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description: Marks a file of options as one for this plugin. Such a file may have any name that ends in
      C(.yml) or C(.yaml); it is not needed where C(hosts.yaml) itself is given with C(-i).
    type: str
    choices: [puffin.fleet.hosts_yaml]
  path:
    description: The C(hosts.yaml), relative to the file of options. Where C(hosts.yaml) is given with C(-i), that
      file is read.
    type: str
    default: hosts.yaml
  executable:
    description: The command C(puffin-fleet). If nothing is said, it is looked for on the PATH, then beside the Python
      that runs Ansible.
    type: str
    env:
      - name: PUFFIN_FLEET_EXECUTABLE
"""

EXAMPLES = r"""
# Enable the plugin once, in ansible.cfg or with ANSIBLE_INVENTORY_ENABLED:
#   [inventory]
#   enable_plugins = puffin.fleet.hosts_yaml, ansible.builtin.auto, ansible.builtin.yaml, ansible.builtin.ini
# Then hosts.yaml is an inventory as it is:
#   ansible-inventory -i hosts.yaml --graph

# Without that, or for options, write a file such as fleet.yml and give it with -i:
plugin: puffin.fleet.hosts_yaml
path: ../hosts.yaml
executable: /opt/puffin-fleet/bin/puffin-fleet
keyed_groups:
  - key: puffin_install
    prefix: install
groups:
  large: puffin_layout | map(attribute='cores') | max >= 16
"""

import json
from pathlib import Path

from ansible.errors import AnsibleParserError
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.puffin.fleet.plugins.module_utils import command
from yaml import YAMLError

OF_HOSTS_YAML = ("fleet", "include")


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Asks puffin-fleet for the hosts."""

    NAME = "puffin.fleet.hosts_yaml"

    def verify_file(self, path):
        """Whether this is a hosts.yaml, or a file of options for this plugin; other YAML is left to other plugins."""
        if not super().verify_file(path) or not path.endswith((".yaml", ".yml")):
            return False
        content = self._content(path)
        return content.get("plugin") == self.NAME or ("plugin" not in content and _is_hosts_yaml(content))

    def parse(self, inventory, loader, path, cache=True):
        """Read the hosts into the inventory."""
        super().parse(inventory, loader, path, cache)
        file = path
        if "plugin" in self._content(path):
            self._read_config_data(path)
            file = str(Path(path).parent / Path(self.get_option("path")).expanduser())
        else:
            self.set_options()
        found = self._ask(file)
        variables = found["_meta"]["hostvars"]
        for group in found["all"]["children"]:
            self.inventory.add_group(group)
            for host in found[group]["hosts"]:
                self.inventory.add_host(host, group=group)
        for host, values in variables.items():
            for name, value in values.items():
                self.inventory.set_variable(host, name, value)
            self._construct(host, values)

    def _ask(self, file):
        try:
            words = [command.find(self.get_option("executable")), "inventory", "--ansible", file]
            said = command.run(words)
        except command.CommandError as error:
            raise AnsibleParserError(str(error)) from error
        if said.code != command.DONE:
            raise AnsibleParserError(said.complaint())
        try:
            return json.loads(said.out)
        except ValueError as error:
            raise AnsibleParserError(f"{words[0]} does not know 'inventory --ansible': install a newer one") from error

    def _construct(self, host, values):
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), values, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), values, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), values, host, strict=strict)

    @staticmethod
    def _content(path):
        """The top of the file; only its keys are looked at, for what is wrong in it is for puffin-fleet to say."""
        try:
            content = yaml_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        except YAMLError:
            return {"fleet": ""} if Path(path).name.startswith("hosts.") else {}
        return content if isinstance(content, dict) else {}


def _is_hosts_yaml(content):
    return any(not isinstance(content.get(key, {}), dict) for key in OF_HOSTS_YAML)
