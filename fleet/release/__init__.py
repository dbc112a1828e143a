"""What is installed on hosts: wheels, tools, and the releases made of them."""
